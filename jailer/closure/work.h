// The parts of make_plan(), one file each. They share one Work.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "jailer/closure/accounts.h"
#include "jailer/closure/plan_builder.h"
#include "jailer/closure/source_root.h"
#include "jailer/elf/resolver.h"
#include "jailer/manifest/model.h"
#include "supervisor/spec/instance.h"

namespace jail {

/// A link that was copied as it was: where it leads is checked when the tree is complete.
struct CopiedLink {
  std::string path;    ///< in the tree
  std::string source;  ///< in the source root
  Place place;
};

/// A library that ld.so finds through its cache alone: outside of the default directories.
struct CachedLibrary {
  std::string path;  ///< as found
  elf::CacheLine line;
  std::string by;
  std::int32_t flags = 0;  ///< what its loader takes from a cache; 0: not known
  bool big_endian = false;
};

/// An object of the tree that says what it loads at run time.
struct DlopenCaller {
  std::string program;  ///< source path of what its closure begins with
  std::string path;     ///< its own, as the loader found it
  std::string tree_path;
  std::vector<std::string> notes;  ///< JSON, unchecked
  Place place;
};

struct Work {
  const Instance& instance;
  const manifest::Manifest& manifest;
  const SourceRoot& source;
  elf::Resolver& resolver;
  const Accounts& accounts;
  PlanBuilder& out;
  const Result<std::vector<manifest::Bundle>>& bundles;  ///< all that there are

  std::vector<CopiedLink> links{};
  std::set<std::string> mounts{};                ///< paths that something is mounted on
  std::map<std::string, std::string> imports{};  ///< undefined symbol -> the tree path of what imports it
  std::map<std::pair<std::string, std::string>, CachedLibrary> cached{};  ///< by name and path
  std::set<std::string> programs{};     ///< source paths whose closure is in the plan
  std::string first_program{};          ///< the ELF program that libraries are looked up for
  std::vector<DlopenCaller> callers{};  ///< whose notes are yet to be read
  std::set<std::string> heard{};        ///< source paths of objects whose notes are known
  std::set<std::string> features{};     ///< that these notes name
};

/// "tree.users[2]".
[[nodiscard]] inline Place place_of(const char* list, std::size_t index) {
  return fmt::format("{}[{}]", list, index);
}

/// Tree path of a program (ELF or script) of the source root and all that it needs; empty after a problem.
std::string plan_program(Work& work, const std::string& path, const Reason& why, const Place& place);

/// All that an ELF file needs, once it stands in the tree as `tree_path`. `real` is its path in the source
/// root.
void plan_needs(Work& work, const std::string& real, const std::string& tree_path, const Place& place);

/// A library by soname or path, as work.first_program would dlopen it. Its path in the tree; empty after a
/// problem.
std::string plan_library(Work& work, const std::string& name, const Reason& why, const Place& place);

/// What resolve_library() has given, into the tree.
std::string plan_found_library(Work& work, const elf::Closure& closure, const Reason& why,
                               const Place& place);

/// `path` with $LIB, as ld.so(8) has it, in the place of which stands what the loader of the tree's first
/// program takes for it: "/usr/$LIB/gconv" is "/usr/lib/x86_64-linux-gnu/gconv" on Debian. Nothing after a
/// problem.
std::optional<std::string> with_lib(Work& work, const std::string& path, const Place& place);

/// Brings in what the objects planned so far say they load at run time, as [dlopen] asks for it.
void plan_dlopen_notes(Work& work);

/// Warns of features that [dlopen] includes and nobody has.
void check_features(Work& work);

/// Path of the source root into the tree, with the links on its way, as a file with the source's mode.
std::string plan_located(Work& work, const elf::Located& file, const Reason& why, const Place& place);

/// One entry of [tree] files (or of a bundle's).
void plan_file(Work& work, const manifest::File& file, const Reason& why, const Place& place);

/// /dev/`name`.
void plan_device(Work& work, const std::string& name, const Reason& why, const Place& place);

/// The bundles that the manifest includes, then those that join by what the closure imports.
void plan_bundles(Work& work);

/// passwd and group.
void plan_accounts(Work& work);

/// Mount points; fills work.mounts.
void plan_mounts(Work& work);

/// /etc/ld.so.cache, where work.cached is not empty.
void plan_loader_cache(Work& work);

/// Whether what the copied links point to is in the tree.
void check_links(Work& work);

}  // namespace jail
