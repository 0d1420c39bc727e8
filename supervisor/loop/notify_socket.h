// The socket of sd_notify(3): one a service, bound at RUN/services/NAME/notify and shown in the jail as
// /run/systemd/notify. Hostile input: anybody in the jail may write to it.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"

namespace jail::loop {

/// What one datagram says. Assignments that we do not know are passed over.
struct NotifyMessage {
  bool ready = false;
  bool reloading = false;
  bool stopping = false;
  std::optional<std::string> status;  ///< as it came, one line
  std::optional<pid_t> main_pid;      ///< in the sender's words: a number of its own pid namespace
  bool operator==(const NotifyMessage&) const = default;
};
[[nodiscard]] NotifyMessage parse_notify(std::string_view datagram);

/// A datagram with its sender as the kernel tells.
struct NotifyDatagram {
  NotifyMessage message;
  pid_t pid = 0;  ///< in our pid namespace; 0: outside of it
  uid_t uid = 0;
  bool cut = false;  ///< longer than we read: not to be believed
};

/// Makes and binds the socket; the directory of `path` exists. SO_PASSCRED is set before anybody can send.
[[nodiscard]] Result<UniqueFd> make_notify_socket(const std::string& path);

/// The first datagram that waits, which stays queued until consume_notify(): a jaild that is killed before it
/// has written down what it learnt leaves it to the next. Nothing when none waits.
[[nodiscard]] std::optional<NotifyDatagram> peek_notify(int fd);
void consume_notify(int fd);

/// A pid namespace, as its link in /proc names it ("pid:[4026531836]"); empty when the process is gone.
[[nodiscard]] std::string pid_namespace(pid_t pid);
/// The pid that `pid` has in its own, innermost namespace; 0 when the process is gone.
[[nodiscard]] pid_t own_pid(pid_t pid);

}  // namespace jail::loop
