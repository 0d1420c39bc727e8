// The one path-safe type: a directory that no path, symlink or race leads out of. Every path of a source root
// and of a tree goes through it; nothing of either is opened by name.
#pragma once

#include <string>
#include <string_view>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/open_below.h"

namespace jail::tree {

using jail::Walk;

class RootDir {
 public:
  /// Opens the directory `path` of the host; its own name may lead through symlinks (it is the caller's
  /// word).
  [[nodiscard]] static Result<RootDir> open(const std::string& path, Walk walk = Walk::automatic);
  /// Takes an open directory; `name` is for messages.
  RootDir(UniqueFd fd, std::string name, Walk walk = Walk::automatic);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// `path` as a message names it: without the root where that is "/".
  [[nodiscard]] std::string shown(std::string_view path) const;

  /// Opens `path` below this directory with no symlink on the way or at its end, and no "..". For making and
  /// for verifying. O_CLOEXEC and O_NOFOLLOW are added to `flags`. Empty with errno: ELOOP or ENOTDIR for a
  /// symlink, EXDEV for a way out or onto another file system.
  [[nodiscard]] UniqueFd beneath(std::string_view path, int flags) const;

  /// Opens `path` as a process with this root would: symlinks and ".." stay inside. For reading sources. A
  /// final symlink is followed unless `flags` holds O_NOFOLLOW. Empty with errno.
  [[nodiscard]] UniqueFd in_root(std::string_view path, int flags) const;

  using Visit = VisitStep;
  /// in_root() by components, asking `visit` about each step on the way.
  [[nodiscard]] UniqueFd walk(std::string_view path, int flags, const Visit& visit) const;

 private:
  UniqueFd fd_;
  std::string name_;
  Walk walk_;
};

/// The parent directories of a run of paths below one RootDir: the last one stays open, so that neighbours
/// cost nothing.
class Cursor {
 public:
  enum class Kind : std::uint8_t { beneath, in_root };
  Cursor(const RootDir& root, Kind kind) : root_(root), kind_(kind) {}

  /// A single component and the directory that it is in: what mkdirat, linkat, fstatat and the like need.
  /// `name` points into the path that was given; the descriptor lives until the next call.
  struct Place {
    int parent = -1;
    const char* name = nullptr;
  };
  /// The place of `path` (absolute, not "/"). The parent is -1 with errno where it cannot be opened.
  [[nodiscard]] Place at(const std::string& path);
  /// Forgets what is open (a directory was replaced).
  void forget();

 private:
  const RootDir& root_;
  Kind kind_;
  std::string parent_;
  UniqueFd fd_;
};

/// Whether `path` is absolute, without empty, "." or ".." components, NUL, a trailing slash, or a name over
/// 255 bytes; "/" is.
[[nodiscard]] bool is_clean(std::string_view path);

/// The directory part of a clean path: "/" of "/etc".
[[nodiscard]] std::string_view parent_of(std::string_view path);

}  // namespace jail::tree
