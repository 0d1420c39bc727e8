#include "jailer/tree/volumes.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>

#include "jailer/tree/copy.h"
#include "jailer/tree/remove_tree.h"
#include "jailer/tree/state.h"
#include "jailer/tree/write_error.h"
#include "supervisor/base/quote.h"

namespace jail::tree {
namespace {

Result<void> compare(const std::string& path, const PlannedVolume& volume, const struct stat& status) {
  if (!S_ISDIR(status.st_mode))
    return with_hint(
        fail(Exit::config, "{}: not a directory, so it cannot be the volume {}", quote(path), volume.name),
        "move it away and build again");
  if (status.st_uid != volume.uid || status.st_gid != volume.gid)
    return with_hint(fail(Exit::config, "{}: the volume belongs to {}:{}, the manifest says {}:{}",
                          quote(path), status.st_uid, status.st_gid, volume.uid, volume.gid),
                     fmt::format("say so in every manifest that shares it, or run: chown -R {}:{} {}",
                                 volume.uid, volume.gid, path));
  if ((status.st_mode & 07777U) != volume.mode)
    return with_hint(
        fail(Exit::config, "{}: the volume has the mode {:04o}, the manifest says {:04o}", quote(path),
             status.st_mode & 07777U, volume.mode),
        fmt::format("say so in every manifest that shares it, or run: chmod {:04o} {}", volume.mode, path));
  return {};
}

/// Under a temporary name until it has its owner and mode: a build that dies leaves no half volume. The
/// caller holds the lock, so what has the name is of a build that died.
Result<void> make_volume(int volumes, const std::string& path, const PlannedVolume& volume) {
  const std::string temporary = ".new";
  JAIL_CHECK(remove_tree(volumes, temporary, path));
  const auto failed = [&]() -> Result<void> {
    const int error = errno;
    ::unlinkat(volumes, temporary.c_str(), AT_REMOVEDIR);
    return fail_write(error, "{}: cannot make the volume", quote(path));
  };
  if (::mkdirat(volumes, temporary.c_str(), 0700) != 0) return failed();
  const UniqueFd fd(::openat(volumes, temporary.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd || ::fchown(fd.get(), volume.uid, volume.gid) != 0 || ::fchmod(fd.get(), volume.mode) != 0 ||
      ::renameat(volumes, temporary.c_str(), volumes, volume.name.c_str()) != 0)
    return failed();
  return {};
}

}  // namespace

Result<bool> check_volumes(const Instance& instance, const std::vector<PlannedVolume>& volumes, bool make) {
  if (volumes.empty()) return true;
  auto dir = open_state_part(instance, "volumes", make);
  if (!dir && dir.error().exit == Exit::no_input) return false;
  if (!dir) return tl::unexpected(std::move(dir).error());
  while (make && ::flock(dir->get(), LOCK_EX) != 0)
    if (errno != EINTR) return fail_errno(Exit::io, errno, "{}: cannot lock", quote(instance.volumes()));
  bool complete = true;
  for (const PlannedVolume& volume : volumes) {
    const std::string path = instance.volumes() + "/" + volume.name;
    struct stat status {};
    if (::fstatat(dir->get(), volume.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
      JAIL_CHECK(compare(path, volume, status));
    } else if (errno != ENOENT) {
      return fail_errno(Exit::io, errno, "{}: cannot stat", quote(path));
    } else if (make) {
      JAIL_CHECK(make_volume(dir->get(), path, volume));
    } else {
      complete = false;
    }
  }
  return complete;
}

Result<void> remove_volume(const Instance& instance, const std::string& name) {
  if (!valid_name(name)) return fail(Exit::usage, "{} cannot be the name of a volume", quote(name));
  auto dir = open_state_part(instance, "volumes", false);
  if (!dir && dir.error().exit == Exit::no_input) return {};
  if (!dir) return tl::unexpected(std::move(dir).error());
  return remove_tree(dir->get(), name, instance.volumes() + "/" + name);
}

}  // namespace jail::tree
