#include "jailer/tree/volume_directories.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <string_view>

#include "jailer/tree/root_dir.h"
#include "jailer/tree/write_error.h"
#include "supervisor/base/quote.h"

namespace jail::tree {
namespace {

constexpr unsigned made_mode = 0700;

bool is_empty(int directory) {
  const int copy = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (copy < 0) return false;
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(copy), &::closedir);
  if (!stream) {
    ::close(copy);
    return false;
  }
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string_view name = static_cast<const char*>(entry->d_name);
    if (name != "." && name != "..") return false;
  }
  return true;
}

/// Whether `directory` is still what mkdir has made, or might as well be. errno where not.
bool is_ours(int directory) {
  struct stat status {};
  if (directory < 0 || ::fstat(directory, &status) != 0) return false;
  errno = EBUSY;
  return status.st_uid == ::geteuid() && (status.st_mode & 07777U) == made_mode && is_empty(directory);
}

/// The volume is the daemon's, who may be hostile: every step starts at an open descriptor and follows no
/// link, and what it puts in the new directory's place before we have it open is not given away. Under a
/// temporary name until it has its owner and mode: a build that dies leaves none with others.
Result<void> make_directory(const RootDir& volume, const PlannedDirectory& directory) {
  const std::string path = "/" + directory.path;
  Cursor cursor(volume, Cursor::Kind::beneath);
  const Cursor::Place place = cursor.at(path);
  if (place.parent < 0) return fail_write(errno, "{}: cannot make the directory", volume.shown(path));
  const std::string temporary = ".new-" + std::string(place.name).substr(0, 200);
  ::unlinkat(place.parent, temporary.c_str(), 0);
  ::unlinkat(place.parent, temporary.c_str(), AT_REMOVEDIR);
  bool good = ::mkdirat(place.parent, temporary.c_str(), made_mode) == 0;
  if (good) {
    const UniqueFd fd(
        ::openat(place.parent, temporary.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    // The mode last: chown takes set-id bits away.
    good = is_ours(fd.get()) && ::fchown(fd.get(), directory.uid, directory.gid) == 0 &&
           ::fchmod(fd.get(), directory.mode) == 0 &&
           (::renameat2(place.parent, temporary.c_str(), place.parent, place.name, RENAME_NOREPLACE) == 0 ||
            errno == EEXIST);
  }
  const int error = errno;
  ::unlinkat(place.parent, temporary.c_str(), AT_REMOVEDIR);
  if (!good) return fail_write(error, "{}: cannot make the directory", volume.shown(path));
  return {};
}

}  // namespace

Result<bool> check_directories(int volume, const std::string& path, const PlannedVolume& planned, bool make) {
  if (planned.directories.empty()) return true;
  UniqueFd fd(::openat(volume, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(Exit::io, errno, "{}: cannot open", quote(path));
  const RootDir root(std::move(fd), path);
  bool complete = true;
  for (const PlannedDirectory& directory : planned.directories) {
    const std::string inside = "/" + directory.path;
    if (root.beneath(inside, O_PATH | O_DIRECTORY)) continue;
    if (errno == ELOOP || errno == ENOTDIR || errno == EXDEV)
      return with_hint(fail(Exit::config, "{}: the volume {} must have a directory here", root.shown(inside),
                            planned.name),
                       "move away what is there, and build again");
    if (errno != ENOENT) return fail_errno(Exit::io, errno, "{}: cannot open", root.shown(inside));
    complete = complete && make;
    if (make) JAIL_CHECK(make_directory(root, directory));
  }
  return complete;
}

}  // namespace jail::tree
