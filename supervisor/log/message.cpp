#include "supervisor/log/message.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace jail::log {
namespace {

template <std::size_t N>
void put(std::array<char, N>& to, std::string_view from) {
  to.fill('\0');
  std::copy_n(from.begin(), std::min(from.size(), N - 1), to.begin());
}

template <std::size_t N>
std::string get(const std::array<char, N>& from) {
  return {from.data(), ::strnlen(from.data(), N)};
}

}  // namespace

void Message::set_name(std::string_view to) {
  put(name, to);
}
void Message::set_text(std::string_view to) {
  put(text, to);
}
std::string Message::get_name() const {
  return get(name);
}
std::string Message::get_text() const {
  return get(text);
}

Transfer send_message(int socket, const Message& message, std::span<const int> fds) {
  iovec vector{const_cast<Message*>(&message), sizeof message};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * fd_limit)> control{};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  if (!fds.empty() && fds.size() <= fd_limit) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
  }
  while (::sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    if (errno == EINTR) continue;
    const bool full = errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == ETOOMANYREFS;
    return full ? Transfer::again : Transfer::closed;
  }
  return Transfer::done;
}

Transfer receive_message(int socket, Message& message, std::array<UniqueFd, fd_limit>* fds) {
  iovec vector{&message, sizeof message};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * fd_limit)> control{};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  if (fds != nullptr) {
    header.msg_control = control.data();
    header.msg_controllen = control.size();
  }
  ssize_t count = 0;
  while ((count = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) {
  }
  if (count < 0) return errno == EAGAIN ? Transfer::again : Transfer::closed;
  if (fds != nullptr) {
    for (cmsghdr* at = CMSG_FIRSTHDR(&header); at != nullptr; at = CMSG_NXTHDR(&header, at)) {
      if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
      const std::size_t total = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < total && i < fd_limit; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(at) + i * sizeof(int), sizeof fd);
        (*fds)[i].reset(fd);
      }
    }
  }
  return count == static_cast<ssize_t>(sizeof message) ? Transfer::done : Transfer::closed;
}

}  // namespace jail::log
