// index.json of a generation: what its tree looks like to stat, for the quick answer to "is it intact?".
#pragma once

#include <string>
#include <vector>

#include "jailer/tree/lock.h"
#include "jailer/tree/root_dir.h"
#include "jailer/tree/store.h"
#include "supervisor/base/error.h"

namespace jail::tree {

struct TreeIndex {
  static constexpr int current_version = 1;
  std::size_t files = 0;
  std::uint64_t bytes = 0;
  std::vector<Stamp> entries;  ///< in the order of the lock's
};

[[nodiscard]] std::string to_json(const TreeIndex& index);
[[nodiscard]] Result<TreeIndex> tree_index_from_json(std::string_view text, std::string_view name);

/// Stats every entry of a tree just made. One that is not as `lock` says is Exit::internal.
[[nodiscard]] Result<TreeIndex> take_index(const RootDir& tree, const Lock& lock);

enum class Intact : std::uint8_t { yes, doubtful, no };

/// Compares `tree` with lock and index by stat alone. `doubtful`: type, mode, owner and size are right, but
/// the stamp of something is not what it was (a link count of a shared object changed, or somebody wrote):
/// only reading can tell.
[[nodiscard]] Intact quick_check(const RootDir& tree, const Lock& lock, const TreeIndex& index,
                                 const Store& store);

/// Whether `status` has the type, mode, owner and (of files) size of `entry`.
[[nodiscard]] bool has_shape(const struct stat& status, const LockEntry& entry);
/// What the store calls the file `entry`, if it is a shared one.
[[nodiscard]] Object object_of(const LockEntry& entry);
/// The S_IFMT bits of `type`.
[[nodiscard]] mode_t format_of(EntryType type);

}  // namespace jail::tree
