// What travels on a report channel: one record a message (SOCK_SEQPACKET), `running` with the daemon's pidfd
// attached. Also on the pipe from the daemon-to-be to the init, where only `failed` is ever written. Shared
// by after_fork.cpp and init_main.cpp (writers) and launch.cpp (reader).
#pragma once

#include <cstddef>
#include <cstdint>

namespace jail::sandbox {

struct Record {
  enum Kind : std::uint32_t { failed = 1, running = 2, exited = 3 };
  std::uint32_t kind = failed;
  std::int32_t error = 0;   ///< failed: errno
  std::int32_t status = 0;  ///< exited: as waitpid(2) gives it
  char step[116] = {};      ///< failed: which, NUL-terminated, cut to fit
};
static_assert(sizeof(Record) == 128);

/// The descriptors that jail-init finds open, and nothing else.
enum InitFd : int {
  init_report_fd = 3,  ///< the report channel
  init_status_fd =
      4,  ///< read end: a `failed` record of the daemon-to-be, or nothing when its exec has succeeded
  init_daemon_fd = 5,  ///< pidfd of the daemon
  init_gate_fd = 6,    ///< write end: the daemon-to-be calls exec when a byte comes
};

}  // namespace jail::sandbox
