#include "supervisor/spec/socket_address.h"

#include <arpa/inet.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "supervisor/base/quote.h"

namespace jail {
namespace {

using Kind = SocketAddress::Kind;
using Family = SocketAddress::Family;

struct KindName {
  Kind kind;
  std::string_view name;
};
constexpr std::array<KindName, 5> kinds = {{{Kind::tcp, "tcp"},
                                            {Kind::udp, "udp"},
                                            {Kind::unix_stream, "unix"},
                                            {Kind::unix_datagram, "unix-dgram"},
                                            {Kind::unix_seqpacket, "unix-seqpacket"}}};

tl::unexpected<Error> refused(std::string_view text, std::string_view why) {
  return fail(Exit::manifest, "{} {}", quote(text, 160), why);
}

/// 1 to 65535, written plainly; 0 for anything else.
std::uint16_t port_of(std::string_view text) {
  std::uint16_t port = 0;
  const bool plain = !text.empty() && text.front() != '0' &&
                     std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return plain && error == std::errc() && end == text.data() + text.size() ? port : std::uint16_t{0};
}

/// As inet_ntop(3) writes it; empty when it is no address of this family.
std::string canonical(int family, std::string_view host) {
  std::array<unsigned char, sizeof(in6_addr)> bytes{};
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (host.find('\0') != std::string_view::npos) return {};  // inet_pton would stop there
  if (::inet_pton(family, std::string(host).c_str(), bytes.data()) != 1) return {};
  return ::inet_ntop(family, bytes.data(), text.data(), text.size());
}

Result<SocketAddress> parse_inet(std::string_view text, std::string_view rest, SocketAddress address) {
  const std::size_t colon = rest.rfind(':');
  const bool bracketed = rest.starts_with('[');
  const std::string_view host = colon == std::string_view::npos ? "" : rest.substr(0, colon);
  address.port = port_of(colon == std::string_view::npos ? rest : rest.substr(colon + 1));
  if (address.port == 0) return refused(text, "has no port: expected a number from 1 to 65535 at its end");
  if (colon == std::string_view::npos) return address;
  if (bracketed && host.ends_with(']')) {
    address.family = Family::ipv6;
    address.host = canonical(AF_INET6, host.substr(1, host.size() - 2));
  } else {
    address.family = Family::ipv4;
    address.host = canonical(AF_INET, host);
  }
  if (address.host.empty())
    return refused(text, "has no numeric address: expected 192.0.2.1, or [2001:db8::1] in brackets");
  return address;
}

Result<SocketAddress> parse_local(std::string_view text, std::string_view path, SocketAddress address) {
  constexpr std::size_t longest = sizeof(sockaddr_un::sun_path) - 1;
  address.family = Family::local;
  if (!path.starts_with('/') || path.ends_with('/'))
    return refused(
        text,
        "has no absolute path behind the colon (abstract sockets belong to nobody: anyone may bind them)");
  if (path.size() > longest) return refused(text, fmt::format("has a path of more than {} bytes", longest));
  for (const std::string_view part : {"//", "/../", "/./"})
    if ((std::string(path) + "/").find(part) != std::string::npos)
      return refused(text, fmt::format("holds '{}': write the path without it", part));
  const bool control = std::any_of(path.begin(), path.end(),
                                   [](char c) { return static_cast<unsigned char>(c) < 0x20U || c == 0x7f; });
  if (control) return refused(text, "holds a control character");
  address.path = path;
  return address;
}

}  // namespace

Result<SocketAddress> parse_socket_address(std::string_view text) {
  const std::size_t colon = text.find(':');
  const auto* const found = std::find_if(kinds.begin(), kinds.end(), [&](const KindName& candidate) {
    return candidate.name == text.substr(0, colon);
  });
  if (colon == std::string_view::npos || found == kinds.end())
    return refused(
        text, "is no address to listen on, such as \"tcp:993\", \"udp:[::1]:53\" or \"unix:/run/x/socket\"");
  SocketAddress address;
  address.kind = found->kind;
  const std::string_view rest = text.substr(colon + 1);
  return address.kind == Kind::tcp || address.kind == Kind::udp ? parse_inet(text, rest, std::move(address))
                                                                : parse_local(text, rest, std::move(address));
}

std::string to_text(const SocketAddress& address) {
  const std::string_view kind = kinds.at(static_cast<std::size_t>(address.kind)).name;
  switch (address.family) {
    case Family::local:
      return fmt::format("{}:{}", kind, address.path);
    case Family::any:
      return fmt::format("{}:{}", kind, address.port);
    case Family::ipv4:
      return fmt::format("{}:{}:{}", kind, address.host, address.port);
    case Family::ipv6:
      return fmt::format("{}:[{}]:{}", kind, address.host, address.port);
  }
  return {};
}

bool overlap(const SocketAddress& a, const SocketAddress& b) {
  if (a.local() || b.local()) return a.local() && b.local() && a.path == b.path;
  if (a.kind != b.kind || a.port != b.port) return false;
  if (a.family == Family::any || b.family == Family::any) return true;
  if (a.family != b.family) return false;
  const std::string_view every = a.family == Family::ipv4 ? "0.0.0.0" : "::";
  return a.host == b.host || a.host == every || b.host == every;
}

}  // namespace jail
