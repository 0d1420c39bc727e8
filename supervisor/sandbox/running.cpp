#include "supervisor/sandbox/running.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cerrno>

#include "supervisor/base/cgroup_place.h"
#include "supervisor/base/io.h"

namespace jail::sandbox {
namespace {

constexpr std::size_t small_file = 1U << 20U;

tl::unexpected<Error> ended() {
  return with_hint(fail(Exit::unavailable, "its process has just ended"), "try again");
}

/// None is fine: the pid namespace holds the processes together, too.
UniqueFd open_cgroup(pid_t pid) {
  const auto mounts = read_file_at(AT_FDCWD, "/proc/self/mountinfo", small_file);
  const auto text = read_file_at(AT_FDCWD, fmt::format("/proc/{}/cgroup", pid), small_file);
  if (!mounts || !text) return {};
  const auto place = find_cgroup_place(*mounts, *text);
  if (!place) return {};
  return UniqueFd(::open(place->own.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

}  // namespace

Result<UniqueFd> open_process(pid_t pid) {
  UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (process) return process;
  if (errno == ESRCH) return ended();
  return fail_errno(Exit::host, errno, "process {}", pid);
}

bool alive(int process) {
  pollfd end{process, POLLIN, 0};
  return ::poll(&end, 1, 0) == 0;
}

Result<Running> look_at(UniqueFd process, pid_t pid, const generation::Opened& generation) {
  Running running;
  running.root.reset(::open(fmt::format("/proc/{}/root", pid).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  const int error = errno;
  running.cgroup = open_cgroup(pid);
  // What stood below the pid was the process's, if it still lives.
  if (!alive(process.get())) return ended();
  if (!running.root) return fail_errno(Exit::permission, error, "/proc/{}/root", pid);
  running.process = std::move(process);
  const UniqueFd tree(
      ::openat(generation.dir.get(), generation::tree, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat ours {};
  struct stat theirs {};
  if (!tree || ::fstat(tree.get(), &ours) != 0 || ::fstat(running.root.get(), &theirs) != 0)
    return fail_errno(Exit::io, errno, "{}/{}", generation.path, generation::tree);
  if (ours.st_dev != theirs.st_dev || ours.st_ino != theirs.st_ino)
    return with_hint(
        fail(Exit::unavailable, "process {} does not live in {}/{}", pid, generation.path, generation::tree),
        "it may have changed its root, or jaild lives in another pid namespace: run jail where jaild runs");
  return running;
}

}  // namespace jail::sandbox
