#include "supervisor/sandbox/host_view.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <climits>
#include <memory>
#include <vector>

#include "supervisor/base/fd.h"
#include "supervisor/base/quote.h"
#include "supervisor/sandbox/raw.h"

namespace jail::sandbox {
namespace {

/// A directory with more entries is not shown anew: each is a mount.
constexpr std::size_t most_entries = 4096;
constexpr unsigned long nosymfollow = 0x2000;  // ST_NOSYMFOLLOW, not in Debian 12's headers

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

UniqueFd descriptor(long result) {
  if (result < 0) errno = static_cast<int>(-result);
  return UniqueFd(result < 0 ? -1 : static_cast<int>(result));
}

/// Links of the host are the host's way to say where things are (/var/run), and followed; one in a volume
/// that is mounted already is not: its mount says nosymfollow.
UniqueFd open_path(int dir, const std::string& path, std::uint64_t flags) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC | flags;
  how.resolve = RESOLVE_NO_MAGICLINKS;
  return descriptor(raw(SYS_openat2, dir, path.c_str(), &how, sizeof how));
}

UniqueFd clone_mount(int fd, unsigned flags = 0) {
  return descriptor(raw(SYS_open_tree, fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | flags));
}

bool attach(const UniqueFd& mount, int where) {
  const long result =
      raw(SYS_move_mount, mount.get(), "", where, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
  if (result < 0) errno = static_cast<int>(-result);
  return result == 0;
}

bool is_directory(int fd) {
  struct stat status {};
  return ::fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
}

bool inside(const std::string& path, const std::string& directory) {
  return path.size() > directory.size() && path.starts_with(directory) && path[directory.size()] == '/';
}

class View {
 public:
  View(const Instance& instance, const LaunchSpec& spec) : instance_(instance), spec_(spec) {}

  Result<void> make() {
    mount_attr attributes{};
    attributes.propagation = MS_PRIVATE;
    if (::unshare(CLONE_NEWNS) != 0 ||
        raw(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &attributes, sizeof attributes) < 0)
      return fail_errno(Exit::host, errno, "cannot make a mount namespace");
    for (const Mount& mount : spec_.mounts)
      if (mount.kind == Mount::Kind::bind) JAIL_CHECK(show(mount));
    return {};
  }

 private:
  Result<void> show(const Mount& mount) {
    const UniqueFd source = open_path(AT_FDCWD, mount.source, O_NOFOLLOW);
    if (!source && mount.optional && (errno == ENOENT || errno == ENOTDIR)) return {};
    if (!source) return fail_errno(Exit::io, errno, "{}: cannot open", quote(mount.source));
    const UniqueFd clone = clone_mount(source.get());
    const bool volume = mount.writable || inside(mount.source, instance_.volumes());
    mount_attr attributes{};
    attributes.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    if (volume) attributes.attr_set |= MOUNT_ATTR_NOSYMFOLLOW;
    if (!mount.writable) attributes.attr_set |= MOUNT_ATTR_RDONLY;
    const long set =
        clone ? raw(SYS_mount_setattr, clone.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) : 0;
    if (!clone || set < 0)
      return fail_errno(Exit::io, clone ? static_cast<int>(-set) : errno, "{}: cannot be mounted",
                        quote(mount.source));
    JAIL_TRY(where, mount_point(mount, is_directory(source.get())));
    if (!attach(clone, where.get())) return fail_errno(Exit::io, errno, "mount {}", quote(mount.target));
    return {};
  }

  /// The place of `mount`, made in a shadow where the host has none.
  Result<UniqueFd> mount_point(const Mount& mount, bool directory) {
    const std::string& target = mount.target;
    UniqueFd there = open_path(AT_FDCWD, target, 0);
    if (there && is_directory(there.get()) != directory)
      return fail(Exit::config, "{} is a {} in the jail, and none on the host", quote(target),
                  directory ? "directory" : "file");
    if (there) return there;
    if (errno != ENOENT) return fail_errno(Exit::io, errno, "{}: cannot open", quote(target));
    return make_in_shadow(target, directory);
  }

  Result<UniqueFd> make_in_shadow(const std::string& target, bool directory) {
    std::string parent = target;
    UniqueFd fd;
    while (!fd) {
      parent.resize(parent.rfind('/'));
      fd = open_path(AT_FDCWD, parent.empty() ? "/" : parent, O_DIRECTORY);
      if (!fd && errno != ENOENT) return fail_errno(Exit::io, errno, "{}: cannot open", quote(parent));
    }
    if (!is_shadow(fd.get())) {
      JAIL_TRY(shadow, shadow_of(std::move(fd), parent));
      fd = std::move(shadow);
    }
    std::string_view rest = std::string_view(target).substr(parent.size() + 1);
    while (true) {
      const std::size_t slash = rest.find('/');
      const bool last = slash == std::string_view::npos;
      const std::string name(rest.substr(0, slash));
      const int made = last && !directory ? ::mknodat(fd.get(), name.c_str(), S_IFREG | 0444, 0)
                                          : ::mkdirat(fd.get(), name.c_str(), 0755);
      UniqueFd next = made == 0 ? open_path(fd.get(), name, O_NOFOLLOW) : UniqueFd();
      if (!next) return fail_errno(Exit::io, errno, "{}: cannot make a place for it", quote(target));
      if (last) return next;
      fd = std::move(next);
      rest.remove_prefix(slash + 1);
    }
  }

  bool is_shadow(int fd) const {
    struct stat status {};
    return ::fstat(fd, &status) == 0 &&
           std::find(shadows_.begin(), shadows_.end(), status.st_dev) != shadows_.end();
  }

  /// A tmpfs over `dir` that shows each of its entries. An overlay would not do: it shows no mounts, and
  /// hides what is written to the files below from the host.
  Result<UniqueFd> shadow_of(UniqueFd dir, const std::string& path) {
    if (path.empty())
      return with_hint(fail(Exit::host, "the host has no directory that the jail's path would be in but /"),
                       "make its first directory on the host (empty, root's)");
    struct statfs mount {};
    if (::fstatfs(dir.get(), &mount) != 0 || (static_cast<unsigned long>(mount.f_flags) & nosymfollow) != 0)
      // Of a volume, and so hostile: a launch demands that the place is there, and so do we.
      return fail(Exit::io, "{}: has no place for what the jail has there", quote(path));
    JAIL_TRY(names, entries(dir.get(), path));
    JAIL_TRY(shadow, new_tmpfs(dir.get(), path));
    if (!attach(shadow, dir.get())) return fail_errno(Exit::io, errno, "mount a tmpfs on {}", quote(path));
    for (const std::string& name : names)
      if (!show_entry(dir.get(), shadow.get(), name) && errno != ENOENT)  // ENOENT: gone meanwhile
        return fail_errno(Exit::io, errno, "{}/{}: cannot be shown", quote(path), quote(name));
    struct stat status {};
    if (::fstat(shadow.get(), &status) != 0) return fail_errno(Exit::io, errno, "{}", quote(path));
    shadows_.push_back(status.st_dev);
    return std::move(shadow);
  }

  static Result<std::vector<std::string>> entries(int dir, const std::string& path) {
    const int fd = ::openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const std::unique_ptr<DIR, CloseDir> list(fd < 0 ? nullptr : ::fdopendir(fd));
    if (!list) return fail_errno(Exit::io, errno, "{}: cannot read", quote(path));
    std::vector<std::string> names;
    while (const dirent* entry = ::readdir(list.get())) {
      const std::string name = static_cast<const char*>(entry->d_name);
      if (name != "." && name != "..") names.push_back(name);
    }
    if (names.size() > most_entries)
      return with_hint(
          fail(Exit::host, "{}: {} entries, more than can be shown anew", quote(path), names.size()),
          "make the jail's directory in it on the host (empty, root's)");
    return names;
  }

  /// Of the owner and mode of `dir`.
  static Result<UniqueFd> new_tmpfs(int dir, const std::string& path) {
    struct stat status {};
    const UniqueFd context = descriptor(raw(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC));
    const auto set = [&context](const char* key, const std::string& value) {
      return raw(SYS_fsconfig, context.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0) == 0;
    };
    if (!context || ::fstat(dir, &status) != 0 || !set("mode", fmt::format("{:o}", status.st_mode & 07777)) ||
        !set("uid", std::to_string(status.st_uid)) || !set("gid", std::to_string(status.st_gid)) ||
        raw(SYS_fsconfig, context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) < 0)
      return fail(Exit::host, "{}: cannot make a tmpfs for it", quote(path));
    UniqueFd made = descriptor(raw(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC,
                                   MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
    if (!made) return fail_errno(Exit::host, errno, "{}: cannot make a tmpfs for it", quote(path));
    return made;
  }

  /// `from` lies below the shadow by now: what is looked up in it is the host's, the mounts in it included.
  static bool show_entry(int from, int shadow, const std::string& name) {
    struct stat status {};
    if (::fstatat(from, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return false;
    if (S_ISLNK(status.st_mode)) {
      std::array<char, PATH_MAX> text{};
      const ssize_t length = ::readlinkat(from, name.c_str(), text.data(), text.size() - 1);
      return length >= 0 && ::symlinkat(text.data(), shadow, name.c_str()) == 0;
    }
    const UniqueFd source = open_path(from, name, O_NOFOLLOW);
    const UniqueFd clone = source ? clone_mount(source.get(), AT_RECURSIVE) : UniqueFd();
    if (!clone) return false;
    const int made = S_ISDIR(status.st_mode) ? ::mkdirat(shadow, name.c_str(), 0755)
                                             : ::mknodat(shadow, name.c_str(), S_IFREG | 0444, 0);
    const UniqueFd where = made == 0 ? open_path(shadow, name, O_NOFOLLOW) : UniqueFd();
    return where && attach(clone, where.get());
  }

  const Instance& instance_;
  const LaunchSpec& spec_;
  std::vector<dev_t> shadows_;
};

}  // namespace

Result<void> show_jail(const Instance& instance, const LaunchSpec& spec) {
  return View(instance, spec).make();
}

}  // namespace jail::sandbox
