#include "supervisor/loop/sockets.h"

#include <fcntl.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <utility>

#include "supervisor/base/quote.h"
#include "supervisor/loop/listeners.h"
#include "supervisor/loop/socket_open.h"

namespace jail::loop {
namespace {

constexpr std::string_view prefix = "socket.";

std::string held_as(unsigned slot) {
  return fmt::format("{}{}", prefix, slot);
}

Port port_of(const SocketAddress& address) {
  return {address.kind == SocketAddress::Kind::tcp ? Port::Protocol::tcp : Port::Protocol::udp, address.port};
}

}  // namespace

bool Sockets::inherit(const std::string& what, UniqueFd& fd) {
  const std::string_view number = std::string_view(what).substr(std::min(what.size(), prefix.size()));
  unsigned slot = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), slot);
  if (!what.starts_with(prefix) || error != std::errc() || end != number.data() + number.size()) return false;
  open_.push_back({std::move(fd), slot, {}, {}});
  if (auto address = address_of(open_.back().fd.get())) open_.back().address = std::move(*address);
  return true;
}

Result<void> Sockets::open(const std::vector<Socket>& wanted, int network, const Keep& keep) {
  const std::uint64_t cookie = wanted.empty() ? 0 : network_cookie(network);
  std::vector<SocketAddress> addresses;
  for (const Socket& socket : wanted) {
    JAIL_TRY(address, parse_socket_address(socket.listen));
    addresses.push_back(std::move(address));
  }
  // First what goes: a changed address may overlap the one before.
  std::vector<Open> old = std::exchange(open_, {});
  for (Open& candidate : old) {
    const bool stays = std::any_of(addresses.begin(), addresses.end(), [&](const SocketAddress& address) {
      return is_socket_of(candidate.fd.get(), address, cookie);
    });
    if (!stays) shut(candidate, keep);
  }
  std::erase_if(old, [](const Open& candidate) { return !candidate.fd; });

  Result<void> done;
  for (std::size_t i = 0; i < wanted.size() && done; ++i)
    done = open_one(wanted[i], addresses[i], network, cookie, old, keep);
  if (!done) {
    std::move(old.begin(), old.end(), std::back_inserter(open_));  // for the next try
    return done;
  }
  for (const Open& twice : old) keep.release(held_as(twice.slot));  // the same socket, held under two names
  return {};
}

/// Out of `old`, or new.
Result<void> Sockets::open_one(const Socket& socket, const SocketAddress& address, int network,
                               std::uint64_t cookie, std::vector<Open>& old, const Keep& keep) {
  const auto found = std::find_if(old.begin(), old.end(), [&](const Open& candidate) {
    return is_socket_of(candidate.fd.get(), address, cookie);
  });
  if (found != old.end()) {
    open_.push_back({std::move(found->fd), found->slot, socket.name, address});
    old.erase(found);
    return refresh_socket(open_.back().fd.get(), socket, address);
  }
  JAIL_TRY(opened, open_socket(socket, address, network));
  unsigned slot = 0;
  for (const auto* list : {&std::as_const(old), &std::as_const(open_)})
    for (const Open& other : *list) slot = std::max(slot, other.slot + 1);
  open_.push_back({std::move(opened), slot, socket.name, address});
  keep.hold(held_as(slot), open_.back().fd.get());
  return {};
}

void Sockets::shut(Open& socket, const Keep& keep) {
  end_socket(socket.fd, socket.address);
  keep.release(held_as(socket.slot));
}

void Sockets::close(const Keep& keep) {
  for (Open& socket : open_) shut(socket, keep);
  open_.clear();
}

std::vector<sandbox::PassedSocket> Sockets::passed() const {
  std::vector<sandbox::PassedSocket> passed;
  for (const Open& socket : open_) {
    // The description is shared with the life before, and so are its flags.
    const int flags = ::fcntl(socket.fd.get(), F_GETFL);
    if (flags >= 0 && (flags & O_NONBLOCK) != 0) (void)::fcntl(socket.fd.get(), F_SETFL, flags & ~O_NONBLOCK);
    passed.push_back({socket.fd.get(), socket.name});
  }
  return passed;
}

std::vector<Port> Sockets::ports() const {
  std::vector<Port> ports;
  for (const Open& socket : open_)
    if (!socket.address.local()) ports.push_back(port_of(socket.address));
  return ports;
}

std::vector<Port> Sockets::abandoned(const std::vector<pid_t>& processes) const {
  const std::set<std::uint64_t> inodes = socket_inodes(processes);
  std::vector<Port> ports;
  for (const Open& socket : open_)
    if (!socket.address.local() && !inodes.contains(inode_of(socket.fd.get())))
      ports.push_back(port_of(socket.address));
  return ports;
}

}  // namespace jail::loop
