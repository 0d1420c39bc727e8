// make_channel(): the socket and the pipes of one jail.
//
// The queue length of a datagram socket is read from net.unix.max_dgram_qlen of its network namespace when it
// is made. The default of ten lets a daemon block in its first syslog() as soon as nobody reads for a moment,
// so the socket is made in a namespace that lives for this one call; the host's setting is not touched. The
// child that does it shares our memory and our descriptor table (the socket is ours as soon as it is made)
// but has its own network namespace, umask and directory: nothing of ours changes, and no path longer than
// sun_path is needed.
#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "supervisor/base/quote.h"
#include "supervisor/log/relay.h"

namespace jail::log {
namespace {

constexpr int pipe_bytes = 1 << 20;
constexpr int so_passrights = 83;  // Linux 6.16: 0 refuses descriptors already at the sender
constexpr std::string_view queue_length = "4096";

struct SocketOrder {
  int directory = -1;
  sockaddr_un address{};
  int fd = -1;
  const char* step = "";
  int error = 0;
};

// Each step names itself before it runs. Runs on the parent's memory while that stands still: system calls
// only.
int make_socket_steps(SocketOrder& order) {
  order.step = "open /proc/sys/net/unix/max_dgram_qlen";
  const int sysctl = ::open("/proc/sys/net/unix/max_dgram_qlen", O_WRONLY | O_CLOEXEC);
  if (sysctl < 0) return errno;
  order.step = "set net.unix.max_dgram_qlen";
  const bool set =
      ::write(sysctl, queue_length.data(), queue_length.size()) == static_cast<ssize_t>(queue_length.size());
  const int set_error = errno;
  ::close(sysctl);
  if (!set) return set_error;
  order.step = "socket";
  order.fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (order.fd < 0) return errno;
  order.step = "set SO_PASSCRED";  // before bind: no message comes without credentials
  const int on = 1, off = 0;
  if (::setsockopt(order.fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) return errno;
  (void)::setsockopt(order.fd, SOL_SOCKET, so_passrights, &off, sizeof off);
  order.step = "chmod";  // of the socket itself, so that the name never has another mode
  if (::fchmod(order.fd, 0666) != 0) return errno;
  ::umask(0);
  order.step = "chdir";
  if (::fchdir(order.directory) != 0) return errno;
  order.step = "bind";
  if (::bind(order.fd, reinterpret_cast<const sockaddr*>(&order.address), sizeof order.address) != 0)
    return errno;
  return 0;
}

int make_socket_child(void* argument) {
  auto& order = *static_cast<SocketOrder*>(argument);
  order.error = make_socket_steps(order);
  return 0;
}

Result<UniqueFd> make_socket(int directory, const std::string& name, const std::string& path) {
  SocketOrder order;
  order.directory = directory;
  order.address.sun_family = AF_UNIX;
  if (name.size() >= sizeof order.address.sun_path)
    return fail(Exit::cannot_create, "{}: the name is too long", quote(path));
  std::memcpy(order.address.sun_path, name.data(), name.size());
  alignas(16) std::array<char, 64 * 1024> stack;
  const int pid = ::clone(make_socket_child, stack.data() + stack.size(),
                          CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_NEWNET, &order);
  if (pid < 0)
    return fail_errno(Exit::host, errno, "{}: make a network namespace for the log socket", quote(path));
  while (::waitpid(pid, nullptr, static_cast<int>(__WCLONE)) < 0 && errno == EINTR) {
  }
  UniqueFd fd(order.fd);
  if (order.error != 0)
    return fail_errno(Exit::cannot_create, order.error, "{}: {}", quote(path), order.step);
  return fd;
}

// A socket that a former life left behind goes; anything else at that name is not ours to remove.
Result<void> remove_stale(int directory, const std::string& name, const std::string& path) {
  struct stat status {};
  if (::fstatat(directory, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return {};
    return fail_errno(Exit::io, errno, "{}: stat", quote(path));
  }
  if (!S_ISSOCK(status.st_mode))
    return fail(Exit::cannot_create, "{}: exists, and is no socket", quote(path));
  if (::unlinkat(directory, name.c_str(), 0) != 0)
    return fail_errno(Exit::io, errno, "{}: remove the old socket", quote(path));
  return {};
}

Result<void> make_pipe(UniqueFd& read_end, UniqueFd& write_end, unsigned uid) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0)
    return fail_errno(Exit::host, errno, "make a pipe for the output of a service");
  read_end.reset(ends[0]);
  write_end.reset(ends[1]);
  if (::fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0)
    return fail_errno(Exit::host, errno, "make a pipe non-blocking");
  (void)::fcntl(ends[1], F_SETPIPE_SZ, pipe_bytes);  // a small pipe works too
  if (::fchown(ends[0], uid, static_cast<gid_t>(-1)) != 0)
    return fail_errno(Exit::permission, errno, "give the pipe of a service to uid {}", uid);
  return {};
}

}  // namespace

Result<Channel> make_channel(const std::string& socket_path, unsigned uid) {
  const std::size_t slash = socket_path.rfind('/');
  if (slash == std::string::npos || slash + 1 == socket_path.size())
    return fail(Exit::internal, "{}: the path of a log socket must be absolute", quote(socket_path));
  const std::string parent = slash == 0 ? "/" : socket_path.substr(0, slash);
  const std::string name = socket_path.substr(slash + 1);
  const UniqueFd directory(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory)
    return fail_errno(Exit::cannot_create, errno, "{}: open the directory of the log socket", quote(parent));
  JAIL_CHECK(remove_stale(directory.get(), name, socket_path));
  Channel channel;
  JAIL_TRY(syslog, make_socket(directory.get(), name, socket_path));
  channel.syslog = std::move(syslog);
  JAIL_CHECK(make_pipe(channel.stdout_read, channel.stdout_write, uid));
  JAIL_CHECK(make_pipe(channel.stderr_read, channel.stderr_write, uid));
  return channel;
}

}  // namespace jail::log
