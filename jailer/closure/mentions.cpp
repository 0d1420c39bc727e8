#include "jailer/closure/mentions.h"

#include <fcntl.h>
#include <fnmatch.h>

#include <algorithm>
#include <set>

#include "jailer/closure/source_root.h"
#include "jailer/elf/mentions.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

bool is_ignored(const Plan& plan, const std::string& library) {
  const std::string name = base_name(library);
  return std::any_of(plan.ignore.begin(), plan.ignore.end(), [&](const std::string& pattern) {
    return ::fnmatch(pattern.c_str(), library.c_str(), 0) == 0 ||
           ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
  });
}

/// In the directories of the loader, or beside the file that mentions it. What the host has not, nobody can
/// put into a tree.
bool is_on_host(const Plan& plan, const SourceRoot& root, const std::string& library, const std::string& by) {
  if (library.front() == '/') return root.status(library).has_value();
  std::vector<std::string> directories = plan.loader_dirs;
  directories.push_back(parent_path(by) + "/");
  return std::any_of(directories.begin(), directories.end(), [&](const std::string& directory) {
    return root.status(directory + library).has_value();
  });
}

}  // namespace

Result<Mentions> read_mentions(const Plan& plan) {
  JAIL_TRY(root, SourceRoot::open(plan.root));
  Mentions all;
  for (const auto& [path, entry] : plan.entries) {
    if (entry.type != EntryType::file || entry.source.empty()) continue;
    JAIL_TRY(fd, root.open_at(entry.source, O_RDONLY));
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) continue;
    const elf::FdSource source(fd.get(), static_cast<std::uint64_t>(status.st_size));
    for (std::string& library : elf::library_mentions(source))
      all.try_emplace(std::move(library), entry.source);
  }
  return all;
}

Result<std::vector<std::string>> unmet_mentions(const Plan& plan, const Mentions& mentions, Looks* looks) {
  std::vector<std::string> warnings;
  if (mentions.empty()) return warnings;
  std::set<std::string> names;
  for (const auto& [path, entry] : plan.entries)
    if (entry.type == EntryType::file || entry.type == EntryType::symlink) names.insert(base_name(path));
  JAIL_TRY(root, SourceRoot::open(plan.root, looks));
  for (const auto& [library, by] : mentions) {
    if (names.contains(base_name(library)) || is_ignored(plan, library)) continue;
    if (base_name(by).starts_with(base_name(library) + ".")) continue;  // its own soname
    if (!is_on_host(plan, root, library, by)) continue;
    warnings.push_back(
        fmt::format("{} names the library {}, which the tree has not: [tree] libraries brings it, "
                    "[dlopen] ignore says that it is not needed",
                    quote(by), quote(library)));
  }
  return warnings;
}

}  // namespace jail
