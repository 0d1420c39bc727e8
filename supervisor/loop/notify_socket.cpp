#include "supervisor/loop/notify_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail::loop {
namespace {

constexpr std::size_t max_datagram = 4096;
constexpr std::size_t max_status = 256;

template <class Number>
std::optional<Number> number(std::string_view text) {
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

}  // namespace

NotifyMessage parse_notify(std::string_view datagram) {
  NotifyMessage message;
  while (!datagram.empty()) {
    const std::size_t end = std::min(datagram.find('\n'), datagram.size());
    const std::string_view line = datagram.substr(0, end);
    datagram.remove_prefix(std::min(end + 1, datagram.size()));
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view key = line.substr(0, equals);
    const std::string_view value = line.substr(equals + 1);
    if (key == "READY") message.ready = value == "1";
    if (key == "RELOADING") message.reloading = value == "1";
    if (key == "STOPPING") message.stopping = value == "1";
    if (key == "STATUS") message.status = value.substr(0, max_status);
    if (key == "MAINPID") {
      message.main_pid = number<pid_t>(value);
      if (message.main_pid && *message.main_pid <= 0) message.main_pid.reset();  // 0 and -1 are no process
    }
  }
  return message;
}

Result<UniqueFd> make_notify_socket(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  // Longer homes are reached through the descriptor of the directory.
  const std::size_t slash = path.rfind('/');
  const UniqueFd dir(::open(path.substr(0, slash).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!dir) return fail_errno(Exit::io, errno, "{}: cannot open its directory", quote(path));
  const std::string name = path.substr(slash + 1);
  const std::string through = fmt::format("/proc/self/fd/{}/{}", dir.get(), name);
  if (through.size() >= sizeof address.sun_path)
    return fail(Exit::config, "{}: the name is too long", quote(path));
  std::memcpy(address.sun_path, through.data(), through.size());

  UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0)
    return fail_errno(Exit::host, errno, "cannot make a notify socket");
  if (::unlinkat(dir.get(), name.c_str(), 0) != 0 && errno != ENOENT)
    return fail_errno(Exit::io, errno, "{}: cannot remove the old socket", quote(path));
  // The mode of the inode is set before it has a name: fchmod on a socket counts for bind.
  if (::fchmod(fd.get(), 0666) != 0 ||
      ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(Exit::cannot_create, errno, "{}: cannot bind", quote(path));
  if (::fchmodat(dir.get(), name.c_str(), 0666, 0) != 0)  // whatever the umask left
    return fail_errno(Exit::cannot_create, errno, "{}: cannot set the mode", quote(path));
  return fd;
}

std::optional<NotifyDatagram> peek_notify(int fd) {
  std::array<char, max_datagram> bytes{};
  iovec part{bytes.data(), bytes.size()};
  // Room for credentials only: descriptors that are sent along are closed by the kernel.
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(ucred))> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  ssize_t size = 0;
  do size = ::recvmsg(fd, &header, MSG_DONTWAIT | MSG_PEEK | MSG_CMSG_CLOEXEC);
  while (size < 0 && errno == EINTR);
  if (size < 0) return std::nullopt;
  NotifyDatagram datagram;
  datagram.cut = (header.msg_flags & MSG_TRUNC) != 0;
  datagram.message = parse_notify({bytes.data(), static_cast<std::size_t>(size)});
  for (cmsghdr* item = CMSG_FIRSTHDR(&header); item != nullptr; item = CMSG_NXTHDR(&header, item)) {
    if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_CREDENTIALS) continue;
    ucred sender{};
    std::memcpy(&sender, CMSG_DATA(item), sizeof sender);
    datagram.pid = sender.pid;
    datagram.uid = sender.uid;
  }
  return datagram;
}

void consume_notify(int fd) {
  char none = 0;
  (void)!::recv(fd, &none, 0, MSG_DONTWAIT | MSG_TRUNC);
}

std::string pid_namespace(pid_t pid) {
  std::array<char, 64> target{};
  const ssize_t size = ::readlink(fmt::format("/proc/{}/ns/pid", pid).c_str(), target.data(), target.size());
  return size > 0 ? std::string(target.data(), static_cast<std::size_t>(size)) : std::string();
}

pid_t own_pid(pid_t pid) {
  const auto status = read_file_at(AT_FDCWD, fmt::format("/proc/{}/status", pid), 65536);
  if (!status) return 0;
  const std::size_t at = status->find("\nNSpid:");
  if (at == std::string::npos) return 0;
  const std::string_view line = std::string_view(*status).substr(at + 7, status->find('\n', at + 1) - at - 7);
  return number<pid_t>(line.substr(line.find_last_of("\t ") + 1)).value_or(0);
}

}  // namespace jail::loop
