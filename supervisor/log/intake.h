// From a jail's socket and pipes into its region of the ring.
#pragma once

#include <cstdint>

#include "supervisor/log/ring.h"

namespace jail::log {

/// What a turn at one descriptor brought.
struct Intake {
  std::uint64_t records = 0;
  bool ended = false;  ///< the descriptor has nothing more, for ever
};

/// Microseconds since 1970, UTC.
[[nodiscard]] std::uint64_t now_us();

/// Receives up to batch_size datagrams from `fd`. Never waits. Descriptors that a hostile sender attached are
/// refused by the kernel: the control buffers hold credentials and no more.
Intake receive_datagrams(Ring& ring, Region region, int fd, bool for_syslog);

/// Reads up to stream_bytes from a pipe of the service and takes its lines. A line without an end stays as
/// Partial.
Intake receive_stream(Ring& ring, Region region, int fd, Source source, bool for_syslog);

/// Makes a record of the line that has not ended, if there is one that is older than `older_than_us`.
void flush_partial(Region region, Source source, bool for_syslog, std::uint64_t now,
                   std::uint64_t older_than_us);

/// Takes what a killed relay had received and not yet appended.
void recover_inbox(Ring& ring);

/// Accounts what a killed relay had sent to the host's syslog.
void recover_outgoing(Ring& ring);

}  // namespace jail::log
