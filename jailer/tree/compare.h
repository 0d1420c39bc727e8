// Two locks side by side: what `jail diff` and `jail history` say.
#pragma once

#include <string>
#include <vector>

#include "jailer/tree/lock.h"

namespace jail {

/// One entry that is not the same in both.
struct EntryChange {
  enum class Kind : std::uint8_t { added, removed, changed };
  Kind kind = Kind::changed;
  std::string path;
  std::vector<std::string> what;  ///< of a changed one: "content", "mode 0755 -> 0644", "xattr user.x" ...
  bool copied = false;            ///< a file that has a source
  std::string package;            ///< that owns its source; empty for none
};

/// A package whose files are in one of the two, or in both in another version.
struct PackageChange {
  std::string name;
  std::string before;  ///< its version; empty: not there
  std::string after;
};

struct LockDiff {
  std::vector<EntryChange> entries;     ///< sorted by path
  std::vector<PackageChange> packages;  ///< sorted by name
  std::vector<std::string> policy;      ///< frozen files that differ: "launch.json"
  std::vector<std::string> volumes;     ///< names of volumes that are new, gone or declared otherwise
  [[nodiscard]] bool empty() const { return entries.empty() && policy.empty() && volumes.empty(); }
};

/// What leads from `before` to `after`. Sources and reasons do not count: they are not in the tree.
[[nodiscard]] LockDiff compare(const Lock& before, const Lock& after);

}  // namespace jail
