// One socket that is passed: the system calls that make, recognise and remove it.
#pragma once

#include <cstdint>
#include <optional>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/spec/launch_spec.h"
#include "supervisor/spec/socket_address.h"

namespace jail::loop {

/// A new network namespace with its loopback up.
[[nodiscard]] Result<UniqueFd> make_network_namespace();

/// Opens `socket`, whose address is `address`, in `network` (-1: ours). An address that is taken is
/// Exit::busy, naming it and who holds it. A unix socket's directories are made where they are missing (root,
/// 0755); the file of a dead socket is replaced.
[[nodiscard]] Result<UniqueFd> open_socket(const Socket& socket, const SocketAddress& address, int network);

/// What can change without a new socket: backlog; owner and mode of the file.
[[nodiscard]] Result<void> refresh_socket(int fd, const Socket& socket, const SocketAddress& address);

/// As the kernel tells; nothing for what is no such socket.
[[nodiscard]] std::optional<SocketAddress> address_of(int fd);

/// What tells network namespaces apart (SO_NETNS_COOKIE); `network`: -1 for ours. 0: not known.
[[nodiscard]] std::uint64_t network_cookie(int network);

/// Whether `fd` is what open_socket() gives for `address` in the namespace of `cookie`. That of a unix socket
/// must still be found by its path.
[[nodiscard]] bool is_socket_of(int fd, const SocketAddress& address, std::uint64_t cookie);

/// Its number in /proc/PID/fd; 0: not known.
[[nodiscard]] std::uint64_t inode_of(int fd);

/// Nobody can connect any more. Closes `fd`, and removes the file of a unix socket.
void end_socket(UniqueFd& fd, const SocketAddress& address);

}  // namespace jail::loop
