// The sockets that a service is passed: opened by jaild as root, so that a low port needs no capability in
// the jail, and kept open while the service is wanted. A restart, a crash, its backoff and the death of jaild
// leave them as they are: who connects meanwhile waits in the kernel's queue and is served by the next life.
// They are closed when the service is stopped or has failed, for then nobody would ever accept.
//
// They are recognised by what the kernel says of them, not by what somebody wrote down: address, kind,
// network namespace. So a new generation keeps those that it has in common with the old one.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/sandbox/sandbox.h"
#include "supervisor/spec/launch_spec.h"
#include "supervisor/spec/socket_address.h"

namespace jail::loop {

/// All sockets of one service.
class Sockets {
 public:
  /// How the keeper is told: hold "socket.N", release it.
  struct Keep {
    std::function<void(const std::string& what, int fd)> hold;
    std::function<void(const std::string& what)> release;
  };

  /// One that an earlier jaild left as `what`; false when that is no name of a socket.
  bool inherit(const std::string& what, UniqueFd& fd);

  /// Makes `wanted` what is open: keeps, opens, closes. On an error what could be opened stays.
  [[nodiscard]] Result<void> open(const std::vector<Socket>& wanted, int network, const Keep& keep);
  /// Closes all, and removes the files of unix sockets that nobody else has taken.
  void close(const Keep& keep);

  [[nodiscard]] bool empty() const { return open_.empty(); }
  /// For a launch, in the order of `wanted`. Each life gets them as they were made: blocking.
  [[nodiscard]] std::vector<sandbox::PassedSocket> passed() const;
  /// Of the addresses with a port.
  [[nodiscard]] std::vector<Port> ports() const;
  /// Those of ports() that none of `processes` has open any more.
  [[nodiscard]] std::vector<Port> abandoned(const std::vector<pid_t>& processes) const;

 private:
  struct Open {
    UniqueFd fd;
    unsigned slot = 0;  ///< held as "socket.SLOT"
    std::string name;
    SocketAddress address;
  };
  [[nodiscard]] Result<void> open_one(const Socket& socket, const SocketAddress& address, int network,
                                      std::uint64_t cookie, std::vector<Open>& old, const Keep& keep);
  static void shut(Open& socket, const Keep& keep);

  std::vector<Open> open_;
};

}  // namespace jail::loop
