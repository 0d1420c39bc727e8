#include "jailer/tree/remove_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <string_view>

#include "supervisor/base/quote.h"

namespace jail::tree {
namespace {

constexpr unsigned max_depth = 64;

/// Which mount a directory is of: its id (Linux 5.8), else the file system alone.
struct Mount {
  std::uint64_t id = 0;
  dev_t device = 0;
  bool operator==(const Mount&) const = default;
};

Mount mount_of(int directory) {
  struct statx status {};
  if (::statx(directory, "", AT_EMPTY_PATH, STATX_MNT_ID, &status) != 0) return {};
  const bool known = (status.stx_mask & STATX_MNT_ID) != 0;
  return {known ? status.stx_mnt_id : 0, makedev(status.stx_dev_major, status.stx_dev_minor)};
}

/// One removal: directories deeper than max_depth are first moved up into the top one, so that the recursion
/// ends.
class Remover {
 public:
  Remover(std::string path, const UnlinkWatch* watch) : path_(std::move(path)), watch_(watch) {}

  Result<void> run(int parent, const std::string& name) {
    if (::unlinkat(parent, name.c_str(), 0) == 0 || errno == ENOENT) return {};
    if (errno != EISDIR && errno != EPERM) return failure();
    top_.reset(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!top_) return failure();
    mount_ = mount_of(parent);
    JAIL_CHECK(demand_same_mount(top_.get(), name));
    do {
      moved_ = false;
      JAIL_CHECK(empty(top_.get(), 0));
    } while (moved_);
    if (::unlinkat(parent, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) return failure();
    return {};
  }

 private:
  tl::unexpected<Error> failure() const {
    return fail_errno(errno == EROFS ? Exit::cannot_create : Exit::io, errno, "{}: cannot remove",
                      quote(path_));
  }

  /// Into the top directory, under a name that whoever filled the tree has not used.
  Result<void> move_up(int directory, const std::string& name) {
    while (true) {
      const std::string flat = fmt::format(".deep-{}", moves_++);
      if (::renameat2(directory, name.c_str(), top_.get(), flat.c_str(), RENAME_NOREPLACE) == 0) return {};
      if (errno != EEXIST) return failure();
    }
  }

  /// What somebody mounted in a tree is not the tree's, and not ours to remove.
  Result<void> demand_same_mount(int directory, const std::string& name) const {
    if (mount_of(directory) == mount_) return {};
    return with_hint(
        fail(Exit::busy, "{}: cannot remove: something is mounted in it, on {}", quote(path_), quote(name)),
        "unmount it (findmnt tells what it is), then try again");
  }

  Result<void> empty(int directory, unsigned depth) {
    JAIL_TRY(names, names_in(directory, path_));
    for (const std::string& name : names) JAIL_CHECK(remove_one(directory, name, depth));
    return {};
  }

  Result<void> remove_one(int directory, const std::string& name, unsigned depth) {
    struct stat status {};
    if (::fstatat(directory, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0)
      return errno == ENOENT ? Result<void>{} : failure();
    if (!S_ISDIR(status.st_mode)) {
      const bool watched = watch_ != nullptr && S_ISREG(status.st_mode) && status.st_nlink > 1;
      if (watched) watch_->before(status);
      if (::unlinkat(directory, name.c_str(), 0) != 0 && errno != ENOENT) return failure();
      if (watched) watch_->after(status);
      return {};
    }
    if (depth >= max_depth) {
      JAIL_CHECK(move_up(directory, name));
      moved_ = true;
      return {};
    }
    const UniqueFd below(::openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!below) return failure();
    JAIL_CHECK(demand_same_mount(below.get(), name));
    JAIL_CHECK(empty(below.get(), depth + 1));
    if (::unlinkat(directory, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) return failure();
    return {};
  }

  std::string path_;
  const UnlinkWatch* watch_;
  UniqueFd top_;
  Mount mount_;
  unsigned long moves_ = 0;
  bool moved_ = false;
};

}  // namespace

Result<std::vector<std::string>> names_in(int directory, const std::string& path) {
  const int copy = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(copy < 0 ? nullptr : ::fdopendir(copy), &::closedir);
  if (!stream) {
    const int error = errno;
    if (copy >= 0) ::close(copy);
    return fail_errno(Exit::io, error, "{}: cannot read the directory", quote(path));
  }
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  if (errno != 0) return fail_errno(Exit::io, errno, "{}: cannot read the directory", quote(path));
  std::sort(names.begin(), names.end());
  return names;
}

Result<void> remove_tree(int parent, const std::string& name, const std::string& path,
                         const UnlinkWatch* watch) {
  return Remover(path, watch).run(parent, name);
}

}  // namespace jail::tree
