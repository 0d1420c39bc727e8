#include "jailer/tree/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "jailer/tree/lock_reader.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

std::string arrow(const std::string& before, const std::string& after) {
  return before + " -> " + after;
}

std::string octal(std::uint32_t mode) {
  return fmt::format("{:04o}", mode);
}

std::string owner(const LockEntry& entry) {
  return fmt::format("{}:{}", entry.uid, entry.gid);
}

/// The names of those that are not the same in both, by any map from names to what can be compared.
template <class Map>
std::vector<std::string> different(const Map& a, const Map& b) {
  std::set<std::string> names;
  for (const Map* map : {&a, &b})
    for (const auto& [name, value] : *map) {
      const Map& other = map == &a ? b : a;
      const auto found = other.find(name);
      if (found == other.end() || !(found->second == value)) names.insert(name);
    }
  return {names.begin(), names.end()};
}

std::vector<std::string> differences(const LockEntry& a, const LockEntry& b) {
  if (a.type != b.type) return {"type " + arrow(tree::type_name(a.type), tree::type_name(b.type))};
  std::vector<std::string> what;
  if (a.sha256 != b.sha256) what.emplace_back("content");
  if (a.target != b.target) what.push_back("target " + arrow(escape(a.target), escape(b.target)));
  if (a.mode != b.mode) what.push_back("mode " + arrow(octal(a.mode), octal(b.mode)));
  if (a.uid != b.uid || a.gid != b.gid) what.push_back("owner " + arrow(owner(a), owner(b)));
  if (a.major != b.major || a.minor != b.minor)
    what.push_back("device " +
                   arrow(fmt::format("{}:{}", a.major, a.minor), fmt::format("{}:{}", b.major, b.minor)));
  for (const std::string& name : different(a.xattrs, b.xattrs)) what.push_back("xattr " + escape(name));
  return what;
}

EntryChange change(EntryChange::Kind kind, const LockEntry& entry, std::vector<std::string> what = {}) {
  return {kind, entry.path, std::move(what), entry.type == EntryType::file && !entry.source.empty(),
          entry.package};
}

std::vector<EntryChange> compare_entries(const std::vector<LockEntry>& before,
                                         const std::vector<LockEntry>& after) {
  using Kind = EntryChange::Kind;
  std::vector<EntryChange> changes;
  auto a = before.begin();
  auto b = after.begin();
  while (a != before.end() || b != after.end()) {
    if (b == after.end() || (a != before.end() && a->path < b->path)) {
      changes.push_back(change(Kind::removed, *a++));
    } else if (a == before.end() || b->path < a->path) {
      changes.push_back(change(Kind::added, *b++));
    } else {
      if (auto what = differences(*a, *b); !what.empty())
        changes.push_back(change(Kind::changed, *b, std::move(what)));
      ++a, ++b;
    }
  }
  return changes;
}

std::map<std::string, std::string> packages_of(const Lock& lock) {
  std::map<std::string, std::string> packages;
  for (const LockEntry& entry : lock.entries)
    if (!entry.package.empty()) packages[entry.package] = entry.package_version;
  return packages;
}

std::vector<PackageChange> compare_packages(const Lock& before, const Lock& after) {
  const auto a = packages_of(before);
  const auto b = packages_of(after);
  std::set<std::string> names;
  for (const auto* packages : {&a, &b})
    for (const auto& [name, version] : *packages) names.insert(name);
  const auto version = [](const auto& packages, const std::string& name) {
    const auto found = packages.find(name);
    return found == packages.end() ? std::string() : found->second;
  };
  std::vector<PackageChange> changes;
  for (const std::string& name : names)
    if (version(a, name) != version(b, name)) changes.push_back({name, version(a, name), version(b, name)});
  return changes;
}

std::map<std::string, std::string> volumes_of(const Lock& lock) {
  std::map<std::string, std::string> volumes;
  for (const PlannedVolume& volume : lock.volumes) {
    std::string& text = volumes[volume.name];
    text = fmt::format("{} {}:{} {}", volume.path, volume.uid, volume.gid, octal(volume.mode));
    for (const std::string& file : volume.files) text += " " + file;
    for (const PlannedDirectory& directory : volume.directories)
      text +=
          fmt::format(" {} {}:{} {}", directory.path, directory.uid, directory.gid, octal(directory.mode));
  }
  return volumes;
}

}  // namespace

LockDiff compare(const Lock& before, const Lock& after) {
  LockDiff diff;
  diff.entries = compare_entries(before.entries, after.entries);
  diff.packages = compare_packages(before, after);
  diff.policy = different(before.frozen, after.frozen);
  diff.volumes = different(volumes_of(before), volumes_of(after));
  return diff;
}

}  // namespace jail
