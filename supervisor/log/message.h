// What jaild and jail-relay say to each other, over a SOCK_SEQPACKET pair: records of one fixed size,
// descriptors beside them by SCM_RIGHTS. Only jaild sends descriptors.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "supervisor/base/fd.h"

namespace jail::log {

inline constexpr int control_fd = 3;  ///< of jail-relay, when it starts
inline constexpr int ring_fd = 4;

enum class Type : std::uint32_t {
  // jaild to relay
  add = 1,  ///< name; descriptors: socket, stdout, stderr, file, those that `value` has bits of
  file,     ///< name; a new log file
  host,     ///< the host's syslog, connected. Without a descriptor: `value` 0: there shall be none
  remove,   ///< name; drain, write all, forget
  lost,     ///< name; `value` records were dropped by jaild while there was no relay
  ping,     ///< `value` comes back
  // relay to jaild
  hello,  ///< confined and ready
  pong,
  need_host,  ///< the host's syslog is gone
  reopen,     ///< name; its file was removed
  gone,       ///< name; after remove
  counted,    ///< name; `value` of `lost` stands in the ring now
  note,       ///< text: something that the administrator should know
};

inline constexpr std::size_t fd_limit = 4;
enum FdBit : std::uint64_t { has_syslog = 1, has_stdout = 2, has_stderr = 4, has_file = 8 };

struct Message {
  Type type{};
  std::uint32_t serial = 0;
  std::uint64_t value = 0;
  std::array<char, 80> name{};
  std::array<char, 160> text{};

  void set_name(std::string_view to);
  void set_text(std::string_view to);
  [[nodiscard]] std::string get_name() const;  ///< hostile until compared
  [[nodiscard]] std::string get_text() const;
};

/// What send() and receive() say.
enum class Transfer { done, again, closed };

/// Sends without waiting. `again`: the socket is full.
[[nodiscard]] Transfer send_message(int socket, const Message& message, std::span<const int> fds = {});

/// Receives without waiting. Descriptors are taken only if `fds` is given: else the kernel discards them.
[[nodiscard]] Transfer receive_message(int socket, Message& message,
                                       std::array<UniqueFd, fd_limit>* fds = nullptr);

}  // namespace jail::log
