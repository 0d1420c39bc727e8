// A lock by packages: what an SBOM lists and a graph draws.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "jailer/tree/lock.h"

namespace jail::views {

struct Package {
  std::string name;  ///< empty: the files that no package owns
  std::string version;
  std::string architecture;
  std::string purl;  ///< empty where the name is
  std::vector<const LockEntry*> files;
  std::uint64_t bytes = 0;
  bool asked_for = false;           ///< the manifest itself names one of its files
  std::set<std::size_t> depends{};  ///< other packages, by index
};

/// `from` needs `to` to run: by DT_NEEDED, PT_INTERP or "#!".
struct Need {
  const LockEntry* from = nullptr;
  const LockEntry* to = nullptr;
  std::string kind;
  std::string detail;
};

struct Inventory {
  std::vector<Package> packages;  ///< sorted by name and architecture; files without one, if any, are last
  std::map<const LockEntry*, std::size_t> package_of;  ///< files only
  std::vector<Need> needs;                             ///< sorted by paths
};

/// "3.4 MiB", or "secret": the lock does not tell how long such a file is.
[[nodiscard]] std::string size_of(const LockEntry& file);

/// `lock` is borrowed: the inventory points into it. Files marked secret are left out where not asked for.
[[nodiscard]] Inventory inventory_of(const Lock& lock, bool with_secrets);

}  // namespace jail::views
