// A set of system calls -> BPF, by libseccomp.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/error.h"

namespace jail::policy {

/// The policy's epoch: Linux 6.1 (Debian 12). A call with a higher number did not exist when the policy was
/// written, so a program must hear ENOSYS and fall back, as on that kernel. Every architecture has the same
/// numbers from 424 on.
inline constexpr int epoch_last_call = 450;  // set_mempolicy_home_node

/// What a filter allows.
struct Policy {
  std::set<std::string> calls;  ///< names that known_call() knows
  bool packet_sockets = false;  ///< socket(AF_PACKET): a jail with net_raw
};

/// Whether libseccomp (or our table of newer calls) knows `name`, on whatever architecture.
[[nodiscard]] bool known_call(const std::string& name);

/// Number of `name` here; nothing for unknown names and for calls of other architectures.
[[nodiscard]] std::optional<int> call_number(const std::string& name);

/// All names of the native architecture, for "did you mean".
[[nodiscard]] std::vector<std::string> call_names();

/// Calls without which no filtered process could get as far as execve, or end: always allowed.
[[nodiscard]] const std::vector<std::string>& indispensable_calls();

/// The program: the bytes of struct sock_filter[]. Equal policies give equal bytes.
///
///   foreign architecture, x32                            KILL_PROCESS
///   allowed                                              ALLOW, with the argument rules of compiler.cpp
///   clone3, io_uring_*, newer than the epoch, unknown    ERRNO(ENOSYS) unless allowed
///   else                                                 ERRNO(EPERM)
[[nodiscard]] Result<std::string> compile(const Policy& policy);

}  // namespace jail::policy
