// Steps that the ways into a jail share: a launch (after_fork.cpp) and a command that joins a jail that runs
// (join_after_fork.cpp). The same rules hold here as there: no allocation, no locks, no exceptions, system
// calls through raw.h alone. Private to this room.
#pragma once

#include <cerrno>
#include <cstdint>

#include "supervisor/sandbox/after_fork.h"
#include "supervisor/sandbox/raw.h"
#include "supervisor/sandbox/record.h"

namespace jail::sandbox {

inline constexpr int exit_status = 125;  // of a child whose set-up failed; nobody looks at it

/// Where a failed step is told. must() passes a good result on and ends the task on a bad one.
class Steps {
 public:
  explicit Steps(int channel) noexcept : channel_(channel) {}

  long must(const char* step, long result) const noexcept {
    if (result < 0) fail(step, -result);
    return result;
  }

  /// Demands that what the kernel says is what was asked for.
  void verify(const char* step, bool same) const noexcept {
    if (!same) fail(step, EPERM);
  }

  [[noreturn]] void fail(const char* step, long error) const noexcept {
    Record record;
    record.error = static_cast<std::int32_t>(error);
    for (std::size_t i = 0; i + 1 < sizeof record.step && step[i] != '\0'; ++i) record.step[i] = step[i];
    raw(SYS_write, channel_, &record, sizeof record);
    for (;;) raw(SYS_exit_group, exit_status);
  }

  void move_channel(int channel) noexcept { channel_ = channel; }

 private:
  int channel_;
};

void close_fd(long fd) noexcept;

/// openat2(2) with O_PATH.
long open_path(long dirfd, const char* path, std::uint64_t flags, std::uint64_t resolve) noexcept;

/// Dies with its parent: with jaild until set-up is complete, with the `jail exec` that asked for it. A
/// parent that died before the signal was asked for is seen by its pidfd: getppid() says 0 in a new pid
/// namespace.
void die_with_parent(const Steps& steps, const Plan& plan) noexcept;

void hide_memory(const Steps& steps) noexcept;
/// Every disposition to its default (ignored ones survive clone and exec), nothing blocked.
void reset_signals(const Steps& steps) noexcept;

void new_session(const Steps& steps) noexcept;
void set_umask(const Steps& steps, unsigned mask) noexcept;
void join_new_keyring(const Steps& steps) noexcept;
/// Makes wanted[i] descriptor i for all i < count, those from `first_private` on close-on-exec, and closes
/// all others; a negative one stays closed. `steps` is told where its own, at `channel`, went.
void keep_only(Steps& steps, const int* wanted, int count, int first_private, int channel) noexcept;

/// From root to `who`, exactly, and back from nowhere. CAP_SETPCAP is kept to the last but one call, for the
/// lock.
void become(const Steps& steps, const Identity& who) noexcept;

void forbid_new_privileges(const Steps& steps) noexcept;
void set_limits(const Steps& steps, const Plan& plan) noexcept;
/// Resolved within the root, through no magic link: /proc/self/fd/N is no place to start in.
void enter_working_directory(const Steps& steps, const Plan& plan) noexcept;

/// Where the kernel has it: abstract sockets and signals of the world outside are out of reach, and so are
/// all ports of TCP but those of the manifest.
void restrict_reach(const Steps& steps, const Plan& plan) noexcept;

void deny_write_execute(const Steps& steps, const Plan& plan) noexcept;
void filter_calls(const Steps& steps, const Plan& plan) noexcept;

}  // namespace jail::sandbox
