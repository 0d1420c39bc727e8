// What jaild does for its relay with the kernel: start it, end one that was left over, connect the host's
// syslog, and drain where there is no relay.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"

namespace jail::log {

struct RelayChild {
  pid_t pid = -1;
  UniqueFd pidfd;
  UniqueFd control;
};

/// Starts jail-relay from the descriptor `program`, with the other end of `control` at 3 and `ring` at 4 and
/// nothing else.
[[nodiscard]] Result<RelayChild> spawn_relay(int program, int ring);

/// Kills the relay that owns `ring`, if there is one. It does not wait: the next relay does, for the ring's
/// lock.
void evict_owner(int ring);

/// A datagram socket connected to the syslog daemon at `path`. Exit::unavailable where there is none.
[[nodiscard]] Result<UniqueFd> connect_syslog(const std::string& path);

/// Reads and discards what stands in a jail's socket; pipes only when they get full. The number of lost
/// records.
std::uint64_t drain_and_count(const std::array<UniqueFd, 3>& sources);

}  // namespace jail::log
