#include "jailer/views/inventory.h"

#include <algorithm>
#include <tuple>

#include "jailer/views/format.h"
#include "jailer/views/purl.h"

namespace jail::views {
namespace {

bool runs_by(const Reason& reason) {
  return reason.kind == "needed" || reason.kind == "interpreter" || reason.kind == "script";
}

void add_needs(Inventory& all, const LockEntry& entry, const std::map<std::string, const LockEntry*>& files) {
  for (const Reason& reason : entry.why) {
    const auto from = files.find(reason.by);
    if (!runs_by(reason) || from == files.end() || from->second == &entry) continue;
    all.needs.push_back({from->second, &entry, reason.kind, reason.detail});
  }
}

}  // namespace

std::string size_of(const LockEntry& file) {
  return file.secret ? "secret" : human_size(file.size);
}

Inventory inventory_of(const Lock& lock, bool with_secrets) {
  using Key = std::tuple<bool, std::string, std::string, std::string>;  // those without a name are last
  std::map<Key, Package> by_key;
  std::map<std::string, const LockEntry*> files;
  for (const LockEntry& entry : lock.entries) {
    if (entry.type != EntryType::file || (entry.secret && !with_secrets)) continue;
    files[entry.path] = &entry;
    Package& package =
        by_key[{entry.package.empty(), entry.package, entry.package_architecture, entry.package_version}];
    package.files.push_back(&entry);
    package.bytes += entry.size;
    package.asked_for = package.asked_for || std::any_of(entry.why.begin(), entry.why.end(),
                                                         [](const Reason& why) { return why.by.empty(); });
  }
  Inventory all;
  for (auto& [key, package] : by_key) {
    const LockEntry& any = *package.files.front();
    if (!any.package.empty()) {
      package.name = any.package;
      package.version = any.package_version;
      package.architecture = any.package_architecture;
      package.purl = deb_purl(package.name, package.version, package.architecture, lock.distribution);
    }
    for (const LockEntry* file : package.files) all.package_of[file] = all.packages.size();
    all.packages.push_back(std::move(package));
  }
  for (const auto& [path, entry] : files) add_needs(all, *entry, files);
  std::stable_sort(all.needs.begin(), all.needs.end(), [](const Need& a, const Need& b) {
    return std::tie(a.from->path, a.to->path) < std::tie(b.from->path, b.to->path);
  });
  for (const Need& need : all.needs) {
    const std::size_t from = all.package_of.at(need.from);
    const std::size_t to = all.package_of.at(need.to);
    if (from != to) all.packages[from].depends.insert(to);
  }
  return all;
}

}  // namespace jail::views
