#include "jailer/tree/volumes.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>

#include "jailer/tree/copy.h"
#include "jailer/tree/remove_tree.h"
#include "jailer/tree/state.h"
#include "jailer/tree/volume_directories.h"
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

bool missing(int volume, const std::string& file) {
  struct stat status {};
  return ::fstatat(volume, file.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT;
}

/// The directory is the daemon's, who may be hostile: nothing in it is followed, and nothing replaced. Under
/// a temporary name until the file has its owner and mode; a daemon that swaps that name deceives only
/// itself.
Result<void> make_file(int volume, const std::string& path, const PlannedVolume& planned,
                       const std::string& file) {
  const std::string temporary = ".new-" + file.substr(0, 200);
  ::unlinkat(volume, temporary.c_str(), 0);
  const UniqueFd fd(
      ::openat(volume, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  bool good = fd && ::fchown(fd.get(), planned.uid, planned.gid) == 0 &&
              ::fchmod(fd.get(), planned.mode & 0666U) == 0 && ::fsync(fd.get()) == 0;
  if (good) {
    good = ::renameat2(volume, temporary.c_str(), volume, file.c_str(), RENAME_NOREPLACE) == 0 ||
           errno == EEXIST;
  }
  const int error = errno;
  ::unlinkat(volume, temporary.c_str(), 0);
  if (!good) return fail_write(error, "{}/{}: cannot make the file", quote(path), file);
  return {};
}

/// Makes (or only looks for) the files that the volume must have; returns whether all are there.
Result<bool> check_files(int volume, const std::string& path, const PlannedVolume& planned, bool make) {
  bool complete = true;
  for (const std::string& file : planned.files) {
    if (!missing(volume, file)) continue;
    if (make)
      JAIL_CHECK(make_file(volume, path, planned, file));
    else
      complete = false;
  }
  return complete;
}

/// The directories and files that the volume must have; returns whether all are there.
Result<bool> check_contents(int volume, const std::string& path, const PlannedVolume& planned, bool make) {
  JAIL_TRY(directories, check_directories(volume, path, planned, make));
  JAIL_TRY(files, check_files(volume, path, planned, make));
  return directories && files;
}

UniqueFd open_volume(int volumes, const std::string& name) {
  return UniqueFd(::openat(volumes, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

/// Under a temporary name until it is complete: a build that dies leaves no half volume.
/// The caller holds the lock, so what has the name is of a build that died.
Result<void> make_volume(int volumes, const std::string& path, const PlannedVolume& volume) {
  const std::string temporary = ".new";
  JAIL_CHECK(remove_tree(volumes, temporary, path));
  const auto failed = [&]() -> Result<void> {
    const int error = errno;
    (void)remove_tree(volumes, temporary, path);
    return fail_write(error, "{}: cannot make the volume", quote(path));
  };
  if (::mkdirat(volumes, temporary.c_str(), 0700) != 0) return failed();
  const UniqueFd fd = open_volume(volumes, temporary);
  if (!fd) return failed();
  if (auto contents = check_contents(fd.get(), path, volume, true); !contents) {
    (void)remove_tree(volumes, temporary, path);
    return tl::unexpected(std::move(contents).error());
  }
  if (::fchown(fd.get(), volume.uid, volume.gid) != 0 || ::fchmod(fd.get(), volume.mode) != 0 ||
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
      if (volume.files.empty() && volume.directories.empty()) continue;
      const UniqueFd fd = open_volume(dir->get(), volume.name);
      if (!fd) return fail_errno(Exit::io, errno, "{}: cannot open", quote(path));
      JAIL_TRY(all_there, check_contents(fd.get(), path, volume, make));
      complete = complete && all_there;
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
