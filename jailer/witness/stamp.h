// What tells, without reading, that a file is the one that was seen before.
#pragma once

#include <sys/stat.h>
#include <time.h>

#include <cstdint>

namespace jail {

constexpr std::int64_t nanoseconds(const timespec& time) {
  return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

struct Stamp {
  std::uint64_t inode = 0;
  std::uint64_t size = 0;
  std::int64_t mtime = 0;  ///< nanoseconds since 1970
  std::int64_t ctime = 0;
  bool operator==(const Stamp&) const = default;
};

inline Stamp stamp_of(const struct stat& status) {
  return {status.st_ino, static_cast<std::uint64_t>(status.st_size), nanoseconds(status.st_mtim),
          nanoseconds(status.st_ctim)};
}

/// The kernel's clock of file times: it moves in ticks (4 ms at 250 Hz). A file whose ctime is older than
/// this can not be changed any more without a new ctime; one of the current tick can, and must not be trusted
/// by its stamp (git calls such a file racy).
inline std::int64_t file_clock() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return nanoseconds(now);
}

/// Whether the file system gives each change that follows a look a ctime of its own (since Linux 6.13, the
/// "multigrain timestamps" of ext4, xfs, btrfs and tmpfs): then a stamp is worth something at once. Changes
/// the ctime of `fd`, a file or directory of ours, which must not be looked at again by its stamp.
inline bool has_fine_stamps(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0 || ::fchmod(fd, status.st_mode & 07777U) != 0 || ::fstat(fd, &status) != 0)
    return false;
  // Finer than the ticks of the clock: only then ahead of it.
  return nanoseconds(status.st_ctim) > file_clock();
}

}  // namespace jail
