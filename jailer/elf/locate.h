// Follows paths inside a root as the kernel would after chroot: absolute links stay inside, ".." stops at the
// root. Every step is an openat2 without links, so that a tree that changes meanwhile cannot lead outside.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "jailer/witness/looks.h"
#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"

namespace jail::elf {

/// A symlink that a path ran over, so that the tree can repeat it: /lib -> usr/lib.
struct Hop {
  std::string path;    ///< absolute, below the root
  std::string target;  ///< as read
};

/// A path followed inside a root the way the kernel would after chroot: absolute links stay inside.
struct Located {
  std::string path;       ///< as asked for, absolute
  std::string real;       ///< every link resolved, below the root
  std::vector<Hop> hops;  ///< each link that was followed, in order
};

/// A root directory, with what has been looked up in it remembered for its lifetime.
class RootTree {
 public:
  /// Every look is noted in `looks`, which must outlive this.
  [[nodiscard]] static Result<RootTree> open(const std::string& root, Looks* looks = nullptr);

  enum class Kind : std::uint8_t { missing, directory, regular, other };

  /// What stands at a path, links followed.
  struct Found {
    Kind kind = Kind::missing;
    int error = 0;  ///< errno for `missing`: ENOENT, ENOTDIR, ELOOP, EACCES ...
    Located located;
    dev_t device = 0;
    ino_t inode = 0;
    mode_t mode = 0;
  };

  /// Follows an absolute path. A relative one counts as missing (EINVAL): daemons have no current directory
  /// to speak of.
  [[nodiscard]] const Found& find(const std::string& path);

  /// Opens a regular file that find() has given, for reading. Exit::io when it changed since.
  [[nodiscard]] Result<UniqueFd> open_file(const Found& found, std::uint64_t* size) const;

  /// The root as it was given; for messages.
  [[nodiscard]] const std::string& root() const { return root_; }

 private:
  RootTree(std::string root, UniqueFd fd, Looks* looks)
      : root_(std::move(root)), fd_(std::move(fd)), looks_(looks) {}

  struct Node {
    enum class Type : std::uint8_t { missing, directory, regular, link, other } type = Type::missing;
    int error = 0;
    std::string target;
    dev_t device = 0;
    ino_t inode = 0;
    mode_t mode = 0;
  };
  [[nodiscard]] const Node& node(const std::string& real);
  [[nodiscard]] Node look(const std::string& real) const;
  [[nodiscard]] Found follow(const std::string& path);

  std::string root_;
  UniqueFd fd_;
  Looks* looks_;
  std::unordered_map<std::string, Node> nodes_;
  std::unordered_map<std::string, Found> found_;
};

}  // namespace jail::elf
