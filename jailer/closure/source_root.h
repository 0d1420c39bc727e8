// The root directory that sources are read from. Every path is followed the way the kernel would after chroot
// (openat2 with RESOLVE_IN_ROOT): nothing outside of it can be reached, whatever its links say.
#pragma once

#include <sys/stat.h>

#include <string>
#include <vector>

#include "jailer/witness/looks.h"
#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"

namespace jail {

class SourceRoot {
 public:
  /// `path` is a directory: "/" for the running system. Every look is noted in `looks`, which must outlive
  /// this.
  [[nodiscard]] static Result<SourceRoot> open(const std::string& path, Looks* looks = nullptr);

  [[nodiscard]] const std::string& path() const { return path_; }

  /// Opens `path` (absolute, in the root) with open(2) `flags`; O_CLOEXEC and O_NONBLOCK are added. A path
  /// that does not exist is Exit::no_input, any other trouble Exit::io.
  [[nodiscard]] Result<UniqueFd> open_at(const std::string& path, int flags) const;

  /// What `path` is, a final link followed if `follow`.
  [[nodiscard]] Result<struct stat> status(const std::string& path, bool follow = true) const;

  /// A regular file, whole. More than `limit` bytes is an error.
  [[nodiscard]] Result<std::string> read(const std::string& path, std::size_t limit) const;

  /// "debian-12": ID and VERSION_ID of its os-release, or the first alone; empty where there is none.
  [[nodiscard]] std::string distribution() const;

  /// The first bytes of a regular file, `count` at most; empty for anything else.
  [[nodiscard]] std::string head(const std::string& path, std::size_t count) const;

  /// Target of the link `path`.
  [[nodiscard]] Result<std::string> link_target(const std::string& path) const;

  /// Names in the directory `path` (not through a final link), sorted, without "." and "..".
  [[nodiscard]] Result<std::vector<std::string>> names(const std::string& path) const;

 private:
  void note(const std::string& path, LookAt how, int fd) const;

  std::string path_;
  UniqueFd fd_;
  Looks* looks_ = nullptr;
};

/// `path` without doubled slashes, "." and a trailing slash, "/" for none; ".." is not resolved.
[[nodiscard]] std::string normal_path(const std::string& path);

/// Everything before the last component ("/" for "/x"), and the last component.
[[nodiscard]] std::string parent_path(const std::string& path);
[[nodiscard]] std::string base_name(const std::string& path);

/// Whether `path` is `dir` or below it, component by component ("/jail2" is not below "/jail").
[[nodiscard]] bool is_at_or_below(const std::string& path, const std::string& dir);

}  // namespace jail
