#include "jailer/views/needed.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <set>

#include "jailer/closure/source_root.h"
#include "jailer/elf/elf_file.h"
#include "jailer/views/tree_of.h"

namespace jail::views {
namespace {

struct Library {
  std::string path;
  elf::ElfFile elf;
};

std::vector<Library> read_all(const std::vector<std::string>& files, const Open& open) {
  std::vector<Library> all;
  for (const std::string& path : files) {
    const UniqueFd fd = open(path);
    struct stat status {};
    if (!fd || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) continue;
    const elf::FdSource source(fd.get(), static_cast<std::uint64_t>(status.st_size));
    if (!elf::read_header(source).magic) continue;
    if (auto read = elf::read_elf(source); read && read->has_dynamic) all.push_back({path, std::move(*read)});
  }
  return all;
}

}  // namespace

void add_needed(Reasons& reasons, const std::vector<std::string>& files, const Open& open) {
  const std::vector<Library> all = read_all(files, open);
  std::multimap<std::string, const Library*> by_name;
  for (const Library& library : all) {
    const std::string name = base_name(library.path);
    by_name.emplace(name, &library);
    if (!library.elf.soname.empty() && library.elf.soname != name)
      by_name.emplace(library.elf.soname, &library);
  }
  for (const Library& needer : all) {
    for (const elf::Dependency& dependency : needer.elf.dependencies) {
      const std::string name = base_name(dependency.name);
      const auto [first, last] = by_name.equal_range(name);
      for (auto found = first; found != last; ++found) {
        const Library& library = *found->second;
        if (!(library.elf.header.abi == needer.elf.header.abi) || &library == &needer) continue;
        std::vector<Reason>& why = reasons[library.path];
        const bool known = std::any_of(why.begin(), why.end(), [&](const Reason& reason) {
          return reason.by == needer.path && reason.kind != "link" && reason.kind != "parent";
        });
        if (!known) why.push_back({"needed", needer.path, dependency.name});
      }
    }
  }
}

Result<Lock> lock_with_needed(const generation::Opened& opened) {
  JAIL_TRY(lock, lock_of(opened));
  JAIL_TRY(tree, tree_of(opened));
  Reasons reasons;
  std::vector<std::string> files;
  for (LockEntry& entry : lock.entries) {
    if (entry.type == EntryType::file && !entry.source.empty()) files.push_back(entry.path);
    reasons[entry.path] = std::move(entry.why);
  }
  add_needed(reasons, files,
             [&](const std::string& path) { return tree.beneath(path, O_RDONLY | O_NONBLOCK | O_NOCTTY); });
  for (LockEntry& entry : lock.entries) entry.why = std::move(reasons[entry.path]);
  return std::move(lock);
}

}  // namespace jail::views
