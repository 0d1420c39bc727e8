// Which of the wanted ports have a listening socket of one service, and not of somebody else on the host.
//
// Asked of the kernel by sock_diag(7) in the service's network namespace. In a namespace of its own every
// socket is the service's; in the host's or a shared one it is recognised by its cgroup
// (INET_DIAG_CGROUP_ID), or else by its inode among the descriptors of the jail's processes. Where the kernel
// has no sock_diag for a protocol, /proc/PID/net is read.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/spec/launch_spec.h"

namespace jail::loop {

/// One listening TCP socket, or one UDP socket that is not connected.
struct Listener {
  Port port;
  std::uint64_t inode = 0;
  std::uint64_t cgroup = 0;  ///< 0: not known
};

/// The network namespace of `pid`, or an empty descriptor when it is ours.
[[nodiscard]] Result<UniqueFd> open_foreign_network(pid_t pid);

class ListenerProbe {
 public:
  /// `network` as of open_foreign_network(), borrowed for the call; `alone`: nobody else's sockets can be in
  /// it; `init` is the jail's pid 1.
  [[nodiscard]] static Result<ListenerProbe> open(int network, bool alone, pid_t init,
                                                  std::uint64_t cgroup_id);

  /// Those of `wanted` that no socket of the service listens on.
  [[nodiscard]] Result<std::vector<Port>> missing(const std::vector<Port>& wanted) const;
  /// All of the namespace, whosesoever.
  [[nodiscard]] Result<std::vector<Listener>> listeners(Port::Protocol protocol) const;

 private:
  UniqueFd netlink_;
  bool alone_ = false;
  pid_t init_ = 0;
  std::uint64_t cgroup_ = 0;
};

/// All processes below `init` (it included), read from /proc: those of its pid namespace.
[[nodiscard]] std::vector<pid_t> processes_below(pid_t init);
/// The inodes of all sockets that these processes hold.
[[nodiscard]] std::set<std::uint64_t> socket_inodes(const std::vector<pid_t>& processes);
/// Listening ports in the text of /proc/PID/net/tcp, tcp6, udp or udp6.
[[nodiscard]] std::vector<Listener> parse_proc_net(std::string_view text, Port::Protocol protocol);

/// Who on this host listens on `port`, in our network namespace: "named (pid 12), jaild (pid 7)". Empty when
/// nobody is found. Reads all of /proc: for messages.
[[nodiscard]] std::string describe_holders(const Port& port);

/// "udp:53, tcp:53".
[[nodiscard]] std::string describe(const std::vector<Port>& ports);

}  // namespace jail::loop
