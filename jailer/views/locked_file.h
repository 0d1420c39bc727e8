// Files of a tree, read and checked against its lock on the way: nothing that is not as locked gets out of
// here unnoticed.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "jailer/tree/hash.h"
#include "jailer/tree/lock.h"
#include "jailer/tree/root_dir.h"
#include "supervisor/base/error.h"

namespace jail::views {

/// Takes a piece of a file.
using Take = std::function<Result<void>(std::string_view bytes)>;

/// Looks at the entries of a tree, one after the other. What is not as its lock says is Exit::answer_no.
class LockedReader {
 public:
  /// `tree` is borrowed.
  [[nodiscard]] static Result<LockedReader> make(const tree::RootDir& tree);

  /// Whether type, mode, owner, size, target and device of what stands at the entry's path are as locked.
  [[nodiscard]] Result<void> check(const LockEntry& entry);

  /// Gives all bytes of a file to `take`, exactly as many as the lock says, and checks that they are those,
  /// and that its extended attributes are. After an error what was taken is worth nothing.
  [[nodiscard]] Result<void> read(const LockEntry& entry, const Take& take);

 private:
  explicit LockedReader(const tree::RootDir& tree)
      : tree_(&tree), cursor_(tree, tree::Cursor::Kind::beneath) {}
  const tree::RootDir* tree_;
  tree::Cursor cursor_;
  Sha256 hash_;
  std::string buffer_;
};

/// The SHA-1 of each of `files`, in lower-case hex.
[[nodiscard]] Result<std::vector<std::string>> sha1_of_locked(const tree::RootDir& tree,
                                                              const std::vector<const LockEntry*>& files);

}  // namespace jail::views
