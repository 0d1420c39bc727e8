// The host's syslog: a datagram socket that jaild connected. Never waits for it.
#pragma once

#include "supervisor/base/fd.h"
#include "supervisor/log/ring.h"

namespace jail::log {

class SyslogSink {
 public:
  enum class Status {
    done,     ///< nothing is left to send
    more,     ///< there is more: call again after the others had their turn
    blocked,  ///< its queue is full: try again later
    gone,     ///< nobody is there any more; the socket was closed
    none,     ///< there is no socket
  };

  void open(UniqueFd fd) { fd_ = std::move(fd); }
  [[nodiscard]] bool valid() const { return fd_.valid(); }

  /// Sends up to batch_size records of the region.
  Status flush(Ring& ring, Region region);

 private:
  bool prepare(Ring& ring, Region region);

  UniqueFd fd_;
  std::string text_;
};

/// Moves the region's cursor behind what the kernel says was sent, once.
void account_outgoing(Ring& ring, Region region);

}  // namespace jail::log
