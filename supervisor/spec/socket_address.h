// Where a passed socket listens, as [[socket]] listen and launch.json say it:
//
//   tcp:993  udp:53                   every address of the host, IPv4 and IPv6 alike, on one socket
//   tcp:0.0.0.0:993  tcp:192.0.2.1:993   IPv4 alone
//   tcp:[::]:993  udp:[2001:db8::1]:53   IPv6 alone, whatever net.ipv6.bindv6only says
//   unix:/run/x/stream  unix-dgram:/run/x/datagram  unix-seqpacket:/run/x/packets
//
// What is written is what is bound: no setting of the host changes its meaning.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "supervisor/base/error.h"

namespace jail {

struct SocketAddress {
  enum class Kind : std::uint8_t { tcp, udp, unix_stream, unix_datagram, unix_seqpacket };
  enum class Family : std::uint8_t { any, ipv4, ipv6, local };
  Kind kind = Kind::tcp;
  Family family = Family::any;
  std::string host;        ///< numeric, as inet_ntop(3) writes it; empty: any, local
  std::uint16_t port = 0;  ///< 0: local
  std::string path;        ///< absolute; local only

  [[nodiscard]] bool local() const { return family == Family::local; }
  /// Connections are made to it: it is listened on. Otherwise it gets datagrams.
  [[nodiscard]] bool connected() const { return kind != Kind::udp && kind != Kind::unix_datagram; }
  bool operator==(const SocketAddress&) const = default;
};

/// An error says what is wrong with `text`, in words that follow the name of a key.
[[nodiscard]] Result<SocketAddress> parse_socket_address(std::string_view text);
/// As parse_socket_address() reads it; equal addresses have equal texts.
[[nodiscard]] std::string to_text(const SocketAddress& address);
/// Whether both cannot be bound at once: equal, or one of them takes every address of the other's port.
[[nodiscard]] bool overlap(const SocketAddress& a, const SocketAddress& b);

}  // namespace jail
