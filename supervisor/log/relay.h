// jaild's side of the relay: the process jail-relay that drains every jail's /dev/log, standard output and
// standard error into one file a jail and on to the host's syslog. jaild makes the sockets and pipes, and
// hands them over; a relay that dies or stalls is replaced, and its ring (a memfd that the keeper holds) is
// taken up by the next.
//
// Where things are: channel.cpp the sockets and pipes, record.cpp the line, ring.cpp the memory, intake.cpp
// what comes in, sink_*.cpp what goes out, relay_process.cpp the loop, confine.cpp its sandbox, relay.cpp
// (here) jaild's side.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"

namespace jail::log {

using Clock = std::chrono::steady_clock;

/// The descriptors of one jail's log. jaild's copies: they outlive the relay and, in the keeper, jaild
/// itself.
struct Channel {
  UniqueFd syslog;  ///< bound datagram socket, SO_PASSCRED, queue of 4096
  UniqueFd stdout_read, stdout_write;
  UniqueFd stderr_read, stderr_write;
};

/// Makes the channel of a jail. The socket is bound at `socket_path` (in a root-owned directory that no
/// jailed process can write), mode 0666, made in a throwaway network namespace so that its queue takes 4096
/// datagrams. The pipes belong to `uid` (daemons reopen /dev/stdout by path).
[[nodiscard]] Result<Channel> make_channel(const std::string& socket_path, unsigned uid);

/// The relay process and all that it relays.
class Relay {
 public:
  struct Options {
    int program_fd = -1;                   ///< the jail-relay program
    std::string log_dir;                   ///< NAME.log lies here
    std::string host_syslog = "/dev/log";  ///< empty: none
    UniqueFd ring;                         ///< of the relay before; empty: a new one is made
  };
  [[nodiscard]] static Result<Relay> start(Options options);
  Relay(Relay&&) noexcept;
  Relay& operator=(Relay&&) noexcept;
  ~Relay();  ///< leaves the process to end by itself when its control socket closes; it writes what is left

  /// Relays `channel` as `name` from now on (borrowed: the relay gets duplicates). Known already: replaced. A
  /// log file that cannot be opened is a note (take_notes()), not an error: it is tried again, and records
  /// wait.
  [[nodiscard]] Result<void> add(const std::string& name, const Channel& channel);
  void remove(const std::string& name);

  /// Descriptors to wait on for reading; call on_readable() when any is. They change after each restart of
  /// the relay.
  [[nodiscard]] std::vector<int> wait_fds() const;
  void on_readable();

  /// Call at or after the time it returned last (and at first at once): asks whether the relay lives,
  /// replaces one that has not answered in time. Call it at once when pid() has changed in another call.
  [[nodiscard]] Clock::time_point on_time(Clock::time_point now);

  /// A child of jaild changed state (SIGCHLD came): sees a relay that was stopped or has died at once.
  void on_child_event();

  [[nodiscard]] const UniqueFd& ring() const;
  [[nodiscard]] int pid() const;
  [[nodiscard]] unsigned restarts() const;

  /// What the administrator should know (whole lines, escaped), since the last call: for jaild's own log.
  [[nodiscard]] std::vector<std::string> take_notes();

 private:
  struct Impl;
  explicit Relay(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace jail::log
