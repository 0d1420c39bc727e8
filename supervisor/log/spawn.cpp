#include "supervisor/log/spawn.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "supervisor/base/quote.h"
#include "supervisor/log/message.h"
#include "supervisor/log/ring.h"

namespace jail::log {
namespace {

constexpr int pipe_keeps = 256 * 1024;  // so much of a pipe is left for the relay to come
constexpr int datagrams_a_turn = 8192;  // twice a queue
constexpr unsigned first_stray = 5;

// The child: signals as new, our two descriptors in their places, nothing else open.
[[noreturn]] void become_relay(int program, int control, int ring) {
  sigset_t none;
  sigemptyset(&none);
  for (int number = 1; number < NSIG; ++number) (void)::signal(number, SIG_DFL);
  (void)::sigprocmask(SIG_SETMASK, &none, nullptr);
  (void)::setsid();
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd <= 2; ++fd) {
    if (null < 0 || ::dup2(null, fd) < 0) ::close(fd);
  }
  const bool placed = ::dup2(control, control_fd) == control_fd && ::dup2(ring, ring_fd) == ring_fd;
  (void)::syscall(SYS_close_range, first_stray, ~0U, 4U /* CLOSE_RANGE_CLOEXEC: the program is among them */);
  char name[] = "jail-relay";
  char* argv[] = {name, nullptr};
  const char* zone = ::getenv("TZ");
  std::string tz = "TZ=" + std::string(zone != nullptr ? zone : "");
  char* envp[] = {zone != nullptr ? tz.data() : nullptr, nullptr};
  if (placed) ::syscall(SYS_execveat, program, "", argv, envp, AT_EMPTY_PATH);
  ::_exit(127);
}

}  // namespace

Result<RelayChild> spawn_relay(int program, int ring) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return fail_errno(Exit::host, errno, "start the log relay: make its control socket");
  RelayChild child;
  child.control.reset(ends[0]);
  UniqueFd theirs(ends[1]);
  // High numbers, so that putting one in its place cannot close the other.
  const UniqueFd high_control(::fcntl(theirs.get(), F_DUPFD_CLOEXEC, 10));
  const UniqueFd high_ring(::fcntl(ring, F_DUPFD_CLOEXEC, 10));
  if (!high_control || !high_ring)
    return fail_errno(Exit::host, errno, "start the log relay: duplicate its descriptors");
  child.pid = ::fork();
  if (child.pid == 0) become_relay(program, high_control.get(), high_ring.get());
  if (child.pid < 0) return fail_errno(Exit::host, errno, "start the log relay: fork");
  child.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, child.pid, 0)));
  if (!child.pidfd) return fail_errno(Exit::host, errno, "start the log relay: pidfd_open");
  return child;
}

void evict_owner(int ring) {
  const int pid = Ring::owner(ring);
  if (pid <= 0) return;
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (pidfd && Ring::owner(ring) == pid)  // asked again: now the pidfd is surely the owner's
    (void)::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
}

Result<UniqueFd> connect_syslog(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return fail(Exit::config, "{}: the path of the host's syslog is too long", quote(path));
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(Exit::host, errno, "make a socket for the host's syslog");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(Exit::unavailable, errno, "{}: connect to the host's syslog", quote(path));
  return fd;
}

std::uint64_t drain_and_count(const std::array<UniqueFd, 3>& sources) {
  std::uint64_t lost = 0;
  char byte = 0;
  while (sources[0] && lost < datagrams_a_turn && ::recv(sources[0].get(), &byte, 1, MSG_DONTWAIT) >= 0)
    ++lost;
  std::array<char, 16 * 1024> buffer;
  for (std::size_t i = 1; i < sources.size(); ++i) {
    int waiting = 0;
    while (sources[i] && ::ioctl(sources[i].get(), FIONREAD, &waiting) == 0 && waiting > pipe_keeps) {
      const ssize_t count = ::read(sources[i].get(), buffer.data(), buffer.size());
      if (count <= 0) break;
      lost += static_cast<std::uint64_t>(std::count(buffer.begin(), buffer.begin() + count, '\n'));
    }
  }
  return lost;
}

}  // namespace jail::log
