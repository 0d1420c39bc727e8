#include "supervisor/loop/socket_open.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>

#include "supervisor/base/quote.h"
#include "supervisor/loop/listeners.h"

namespace jail::loop {
namespace {

using Kind = SocketAddress::Kind;
using Family = SocketAddress::Family;

/// Is somewhere else for the time of one call. Without a way home every later launch would happen in the
/// wrong namespace: nothing to go on with then.
Result<void> in_network(int network, const std::function<Result<void>()>& act) {
  if (network < 0) return act();
  const UniqueFd home(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!home || ::setns(network, CLONE_NEWNET) != 0)
    return fail_errno(Exit::host, errno, "cannot enter the service's network namespace");
  auto done = act();
  if (::setns(home.get(), CLONE_NEWNET) != 0) ::_exit(static_cast<int>(Exit::internal));
  return done;
}

int type_of(Kind kind) {
  switch (kind) {
    case Kind::tcp:
    case Kind::unix_stream:
      return SOCK_STREAM;
    case Kind::udp:
    case Kind::unix_datagram:
      return SOCK_DGRAM;
    case Kind::unix_seqpacket:
      return SOCK_SEQPACKET;
  }
  return 0;
}

struct KernelAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

KernelAddress to_kernel(const SocketAddress& address, int family) {
  KernelAddress out;
  if (family == AF_UNIX) {
    auto* local = reinterpret_cast<sockaddr_un*>(&out.storage);
    local->sun_family = AF_UNIX;
    address.path.copy(local->sun_path, sizeof local->sun_path - 1);
    out.size = sizeof *local;
  } else if (family == AF_INET) {
    auto* four = reinterpret_cast<sockaddr_in*>(&out.storage);
    four->sin_family = AF_INET;
    four->sin_port = htons(address.port);
    if (!address.host.empty()) ::inet_pton(AF_INET, address.host.c_str(), &four->sin_addr);
    out.size = sizeof *four;
  } else {
    auto* six = reinterpret_cast<sockaddr_in6*>(&out.storage);
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(address.port);
    if (!address.host.empty()) ::inet_pton(AF_INET6, address.host.c_str(), &six->sin6_addr);
    out.size = sizeof *six;
  }
  return out;
}

int family_of(const SocketAddress& address) {
  switch (address.family) {
    case Family::local:
      return AF_UNIX;
    case Family::ipv4:
      return AF_INET;
    default:
      return AF_INET6;
  }
}

// ---- who is there already
// ---------------------------------------------------------------------------------------

tl::unexpected<Error> failed(const Socket& socket, const SocketAddress& address, int error) {
  const std::string what = fmt::format("socket {}: {}", quote(socket.name), quote(socket.listen, 160));
  if (error != EADDRINUSE) {
    auto told = fail_errno(Exit::host, error, "{}", what);
    if (error == EADDRNOTAVAIL)
      return with_hint(std::move(told), "no interface has this address (yet): ip address");
    if (error == EAFNOSUPPORT)
      return with_hint(std::move(told), "a host without IPv6? Take the address out of 'listen'");
    return told;
  }
  std::string holder = "somebody listens there already";
  if (!address.local()) {
    const bool tcp = address.kind == Kind::tcp;
    const Port port{tcp ? Port::Protocol::tcp : Port::Protocol::udp, address.port};
    if (const std::string names = describe_holders(port); !names.empty()) holder = "held by " + names;
  }
  const std::string look = address.local() ? fmt::format("ss -xlp src {}", address.path)
                                           : fmt::format("ss -{}lnp sport = :{}",
                                                         address.kind == Kind::tcp ? "t" : "u", address.port);
  return with_hint(fail(Exit::busy, "{}: address in use, {}", what, holder),
                   "stop it, or choose another address; see: " + look);
}

// ---- the files of unix sockets
// ------------------------------------------------------------------------------------

/// The directory of `path`. Every directory on the way belongs to root and to root alone, so that what is
/// checked now is still there when bind(2) follows the path: no other can rename in it. A sticky one like
/// /tmp, which keeps root's names, is good enough above, but not for the socket itself: that may belong to
/// somebody else.
Result<UniqueFd> open_directory_of(const std::string& path) {
  UniqueFd here(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!here) return fail_errno(Exit::io, errno, "/: cannot open");
  for (std::size_t at = 1, end = 0; (end = path.find('/', at)) != std::string::npos; at = end + 1) {
    const std::string part = path.substr(at, end - at);
    const std::string so_far = path.substr(0, end);
    const bool made = ::mkdirat(here.get(), part.c_str(), 0755) == 0;
    // The mode again, whatever our umask is.
    if (made ? ::fchmodat(here.get(), part.c_str(), 0755, 0) != 0 : errno != EEXIST)
      return fail_errno(Exit::cannot_create, errno, "{}: cannot make the directory", quote(so_far));
    here.reset(::openat(here.get(), part.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    struct stat status {};
    if (!here || ::fstat(here.get(), &status) != 0)
      return with_hint(fail_errno(Exit::config, errno, "{}: cannot open", quote(so_far)),
                       "write the path without symbolic links");
    const bool last = path.find('/', end + 1) == std::string::npos;
    const bool sticky = (status.st_mode & S_ISVTX) != 0 && !last;
    const bool shared = (status.st_mode & (S_IWGRP | S_IWOTH)) != 0 && !sticky;
    if (status.st_uid != 0 || shared)
      return with_hint(fail(Exit::config, "{}: others than root may rename what is in it", quote(so_far)),
                       "put the socket below a directory of root's, such as /run/NAME");
  }
  return here;
}

/// Whether somebody listens at the path. Never waits.
bool is_alive(const SocketAddress& address) {
  const UniqueFd probe(::socket(AF_UNIX, type_of(address.kind) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const KernelAddress target = to_kernel(address, AF_UNIX);
  return probe && (::connect(probe.get(), target.get(), target.size) == 0 ||
                   (errno != ECONNREFUSED && errno != ENOENT));
}

std::string file_of(const SocketAddress& address) {
  return address.path.substr(address.path.rfind('/') + 1);
}

bool is_socket_file(int directory, const std::string& file) {
  struct stat status {};
  return ::fstatat(directory, file.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(status.st_mode);
}

Result<void> bind_local(int fd, const Socket& socket, const SocketAddress& address) {
  JAIL_TRY(directory, open_directory_of(address.path));
  const std::string file = file_of(address);
  if (is_socket_file(directory.get(), file)) {
    if (is_alive(address)) return failed(socket, address, EADDRINUSE);
    if (::unlinkat(directory.get(), file.c_str(), 0) != 0) return failed(socket, address, errno);
  }
  const KernelAddress where = to_kernel(address, AF_UNIX);
  const mode_t before = ::umask(0177);  // nobody connects before owner and mode are right
  const int bound = ::bind(fd, where.get(), where.size);
  const int error = errno;
  ::umask(before);
  if (bound == 0) return {};
  if (error == EADDRINUSE)
    return with_hint(fail(Exit::config, "socket {}: {} is there, and is no socket", quote(socket.name),
                          quote(address.path)),
                     "move it away, or choose another path");
  return failed(socket, address, error);
}

Result<void> set_file(const Socket& socket, const SocketAddress& address) {
  JAIL_TRY(directory, open_directory_of(address.path));
  const std::string file = file_of(address);
  // No symbolic link can be there: only root may put one. Owner first: a change of it may take mode bits
  // away.
  if (!is_socket_file(directory.get(), file) ||
      ::fchownat(directory.get(), file.c_str(), socket.uid, socket.gid, AT_SYMLINK_NOFOLLOW) != 0 ||
      ::fchmodat(directory.get(), file.c_str(), socket.mode, 0) != 0)
    return fail_errno(Exit::io, errno, "socket {}: {}: cannot set owner and mode", quote(socket.name),
                      quote(address.path));
  return {};
}

// ---- opening
// ----------------------------------------------------------------------------------------------------

Result<void> bind_inet(UniqueFd& fd, int family, const Socket& socket, const SocketAddress& address) {
  const int on = 1;
  const int off = 0;
  const bool both = address.family == Family::any;
  if (address.kind == Kind::tcp && ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0)
    return failed(socket, address, errno);
  if (family == AF_INET6 &&
      ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, both ? &off : &on, sizeof on) != 0)
    return failed(socket, address, errno);
  const KernelAddress where = to_kernel(address, family);
  if (::bind(fd.get(), where.get(), where.size) != 0) return failed(socket, address, errno);
  return {};
}

Result<void> open_here(const Socket& socket, const SocketAddress& address, UniqueFd& fd) {
  int family = family_of(address);
  const int type = type_of(address.kind) | SOCK_CLOEXEC;
  fd.reset(::socket(family, type, 0));
  // A host without IPv6: "every address" means those that it has.
  if (!fd && errno == EAFNOSUPPORT && address.family == Family::any) {
    family = AF_INET;
    fd.reset(::socket(family, type, 0));
  }
  if (!fd) return failed(socket, address, errno);
  if (family == AF_UNIX)
    JAIL_CHECK(bind_local(fd.get(), socket, address));
  else
    JAIL_CHECK(bind_inet(fd, family, socket, address));
  return refresh_socket(fd.get(), socket, address);
}

template <class Value>
std::optional<Value> option(int fd, int level, int name) {
  Value value{};
  socklen_t size = sizeof value;
  if (::getsockopt(fd, level, name, &value, &size) != 0) return std::nullopt;
  return value;
}

/// Whether the file at the path is the one that `fd` was bound to, and not one that came after it.
bool is_reachable(int fd, const SocketAddress& address) {
  constexpr unsigned long file_of_socket =
      SIOCPROTOPRIVATE;  // SIOCUNIXFILE: <linux/un.h> cannot stand beside ours
  const UniqueFd bound(::ioctl(fd, file_of_socket));
  struct stat file {};
  struct stat path {};
  return bound && ::fstat(bound.get(), &file) == 0 && ::lstat(address.path.c_str(), &path) == 0 &&
         file.st_ino == path.st_ino && file.st_dev == path.st_dev;
}

}  // namespace

Result<UniqueFd> make_network_namespace() {
  UniqueFd made;
  const UniqueFd home(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!home || ::unshare(CLONE_NEWNET) != 0)
    return fail_errno(Exit::host, errno, "cannot make a network namespace");
  made.reset(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  const UniqueFd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  request.ifr_name[0] = 'l';
  request.ifr_name[1] = 'o';
  request.ifr_flags = IFF_UP;
  const bool up = made && control && ::ioctl(control.get(), SIOCSIFFLAGS, &request) == 0;
  const int error = errno;
  if (::setns(home.get(), CLONE_NEWNET) != 0) ::_exit(static_cast<int>(Exit::internal));
  if (!up) return fail_errno(Exit::host, error, "cannot bring up lo of a new network namespace");
  return made;
}

Result<UniqueFd> open_socket(const Socket& socket, const SocketAddress& address, int network) {
  UniqueFd fd;
  JAIL_CHECK(in_network(address.local() ? -1 : network, [&] { return open_here(socket, address, fd); }));
  return fd;
}

Result<void> refresh_socket(int fd, const Socket& socket, const SocketAddress& address) {
  if (address.local()) JAIL_CHECK(set_file(socket, address));
  // Of one that listens already this changes the length of its queue.
  if (address.connected() && ::listen(fd, static_cast<int>(socket.backlog)) != 0)
    return failed(socket, address, errno);
  return {};
}

std::optional<SocketAddress> address_of(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  const auto type = option<int>(fd, SOL_SOCKET, SO_TYPE);
  if (!type || ::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return std::nullopt;
  SocketAddress found;
  if (storage.ss_family == AF_UNIX) {
    const auto* local = reinterpret_cast<const sockaddr_un*>(&storage);
    constexpr std::size_t start = offsetof(sockaddr_un, sun_path);
    if (size <= start) return std::nullopt;
    found.kind = *type == SOCK_STREAM  ? Kind::unix_stream
                 : *type == SOCK_DGRAM ? Kind::unix_datagram
                                       : Kind::unix_seqpacket;
    found.family = Family::local;
    found.path.assign(local->sun_path, ::strnlen(local->sun_path, size - start));
    return found;
  }
  if (storage.ss_family != AF_INET && storage.ss_family != AF_INET6) return std::nullopt;
  found.kind = *type == SOCK_STREAM ? Kind::tcp : Kind::udp;
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (storage.ss_family == AF_INET) {
    const auto* four = reinterpret_cast<const sockaddr_in*>(&storage);
    found.family = Family::ipv4;
    found.port = ntohs(four->sin_port);
    ::inet_ntop(AF_INET, &four->sin_addr, text.data(), text.size());
  } else {
    const auto* six = reinterpret_cast<const sockaddr_in6*>(&storage);
    found.family = option<int>(fd, IPPROTO_IPV6, IPV6_V6ONLY).value_or(1) != 0 ? Family::ipv6 : Family::any;
    found.port = ntohs(six->sin6_port);
    ::inet_ntop(AF_INET6, &six->sin6_addr, text.data(), text.size());
  }
  if (found.family != Family::any) found.host = text.data();
  return found;
}

std::uint64_t network_cookie(int network) {
  std::uint64_t cookie = 0;
  (void)in_network(network, [&]() -> Result<void> {
    const UniqueFd probe(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (probe) cookie = option<std::uint64_t>(probe.get(), SOL_SOCKET, SO_NETNS_COOKIE).value_or(0);
    return {};
  });
  return cookie;
}

bool is_socket_of(int fd, const SocketAddress& address, std::uint64_t cookie) {
  auto found = address_of(fd);
  if (!found) return false;
  if (address.family == Family::any && found->family == Family::ipv4 && found->host == "0.0.0.0") {
    found->family = Family::any;  // opened where there is no IPv6
    found->host.clear();
  }
  if (*found != address) return false;
  if (address.local()) return is_reachable(fd, address);
  return option<std::uint64_t>(fd, SOL_SOCKET, SO_NETNS_COOKIE).value_or(0) == cookie;
}

std::uint64_t inode_of(int fd) {
  struct stat status {};
  return ::fstat(fd, &status) == 0 ? status.st_ino : 0;
}

void end_socket(UniqueFd& fd, const SocketAddress& address) {
  if (address.local() && is_reachable(fd.get(), address))
    if (auto directory = open_directory_of(address.path))
      (void)::unlinkat(directory->get(), file_of(address).c_str(), 0);
  // The keeper's duplicate goes a moment later: whoever connects now is to be refused, and the port to be
  // free.
  if (address.connected()) (void)::shutdown(fd.get(), SHUT_RDWR);
  fd.reset();
}

}  // namespace jail::loop
