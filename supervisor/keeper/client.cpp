// jaild's side of the socket to the keeper.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "supervisor/base/quote.h"
#include "supervisor/keeper/keeper.h"
#include "supervisor/keeper/record.h"

namespace jail::keeper {
namespace {

constexpr timeval send_time{.tv_sec = 5, .tv_usec = 0};
constexpr timeval connect_time{.tv_sec = 10, .tv_usec = 0};

union Control {
  cmsghdr align;
  std::array<char, CMSG_SPACE(sizeof(int))> bytes;
};

Result<void> send_record(int socket, const Record& record, int fd) {
  iovec part{const_cast<Record*>(&record), sizeof record};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  Control control{};
  if (fd >= 0) {
    message.msg_control = control.bytes.data();
    message.msg_controllen = control.bytes.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  while (::sendmsg(socket, &message, MSG_NOSIGNAL) < 0) {
    if (errno == EINTR) continue;
    if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)
      return fail(Exit::unavailable, "the keeper is gone");
    if (errno == EAGAIN) return fail(Exit::busy, "the keeper does not read: it may be stopped");
    return fail_errno(Exit::internal, errno, "cannot send {} to the keeper", quote(record.name));
  }
  return {};
}

// One record and the descriptor that came with it. Nothing: no more for now.
struct Received {
  Record record;
  UniqueFd fd;
};

Result<std::optional<Received>> receive_record(int socket, int flags) {
  Received received;
  iovec part{&received.record, sizeof received.record};
  Control control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes.data();
  message.msg_controllen = control.bytes.size();
  ssize_t got = 0;
  do got = ::recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got < 0 && errno == EAGAIN) return std::nullopt;
  if (got < 0 && errno != ECONNRESET) return fail_errno(Exit::internal, errno, "cannot read from the keeper");
  if (got <= 0) return fail(Exit::unavailable, "the keeper is gone");
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    received.fd.reset(fd);
  }
  received.record.name[name_size - 1] = '\0';
  if (static_cast<std::size_t>(got) != sizeof(Record) || (message.msg_flags & MSG_TRUNC) != 0)
    return fail(Exit::internal, "the keeper sent a record of {} bytes: another version?", got);
  if (received.record.op == Op::held && !received.fd)
    return fail(Exit::host, "no descriptor is left to take {} from the keeper: raise the limit on open files",
                quote(received.record.name));
  return received;
}

Result<Record> named(Op op, const std::string& name) {
  Record record;
  record.op = op;
  if (name.empty() || name.size() >= name_size || name.find('\0') != std::string::npos)
    return fail(Exit::internal, "{} cannot be the name of a descriptor", quote(name));
  std::memcpy(record.name, name.data(), name.size());
  return record;
}

void make_blocking(int socket) {
  const int flags = ::fcntl(socket, F_GETFL);
  if (flags >= 0 && (flags & O_NONBLOCK) != 0) ::fcntl(socket, F_SETFL, flags & ~O_NONBLOCK);
}

}  // namespace

Result<Client> Client::connect(UniqueFd socket) {
  int type = 0;
  socklen_t length = sizeof type;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_SEQPACKET)
    return with_hint(fail(Exit::usage, "descriptor {} is no socket of a keeper", socket.get()),
                     "--keeper-fd is for jail-keeper; start jaild without it");
  make_blocking(socket.get());
  if (::fcntl(socket.get(), F_SETFD, FD_CLOEXEC) != 0 ||
      ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &send_time, sizeof send_time) != 0 ||
      ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &connect_time, sizeof connect_time) != 0)
    return fail_errno(Exit::internal, errno, "cannot set up the socket to the keeper");
  Client client;
  client.socket_ = std::move(socket);
  while (true) {
    JAIL_TRY(received, receive_record(client.fd(), 0));
    if (!received)
      return fail(Exit::unavailable, "the keeper did not say what it holds within {} s", connect_time.tv_sec);
    const Record& record = received->record;
    if (record.op == Op::end) return client;
    if (record.op == Op::held) client.held_.push_back({record.name, std::move(received->fd)});
    if (record.op == Op::reaped) client.reaped_.push_back({record.pid, record.status});
  }
}

std::vector<Held> Client::take_held() {
  return std::exchange(held_, {});
}

Result<void> Client::store(const std::string& name, int fd) {
  JAIL_TRY(record, named(Op::store, name));
  // Else a record without descriptor would go out.
  if (fd < 0) return fail(Exit::internal, "no descriptor to hold as {}", quote(name));
  return send_record(socket_.get(), record, fd);
}

Result<void> Client::drop(const std::string& name) {
  JAIL_TRY(record, named(Op::drop, name));
  return send_record(socket_.get(), record, -1);
}

Result<std::vector<Reaped>> Client::on_readable() {
  std::vector<Reaped> ends = std::exchange(reaped_, {});
  while (true) {
    auto received = receive_record(socket_.get(), MSG_DONTWAIT);
    if (!received && ends.empty()) return tl::unexpected(std::move(received).error());
    if (!received || !*received)
      return ends;  // what went wrong will do so again, when all that came is dealt with
    if ((*received)->record.op == Op::reaped)
      ends.push_back({(*received)->record.pid, (*received)->record.status});
  }
}

namespace {

// In the parent of the fork: becomes jail-keeper, the parent of `jaild`. Comes back when it cannot.
void become_keeper(const std::string& program, const std::vector<std::string>& arguments, int ours,
                   int theirs, pid_t jaild) {
  std::vector<std::string> words = {"jail-keeper", "--take-over", std::to_string(ours),
                                    std::to_string(theirs), std::to_string(jaild)};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  for (const int fd : {ours, theirs}) ::fcntl(fd, F_SETFD, 0);
  ::execv(program.c_str(), argv.data());
}

}  // namespace

Result<void> Client::replace_keeper(const std::string& program, const std::vector<std::string>& arguments,
                                    const std::vector<std::pair<std::string, int>>& held) {
  std::array<int, 2> pair{-1, -1};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) != 0)
    return fail_errno(Exit::host, errno, "cannot make a socket for the new keeper");
  UniqueFd ours(pair[0]);
  UniqueFd theirs(pair[1]);
  const pid_t child = ::fork();
  if (child < 0) return fail_errno(Exit::host, errno, "cannot fork for the new keeper");
  if (child > 0) {
    become_keeper(program, arguments, ours.get(), theirs.get(), child);
    const int error = errno;
    ::kill(child, SIGKILL);  // our own child, not reaped: the number is still its
    ::waitpid(child, nullptr, 0);
    return with_hint(fail_errno(Exit::host, error, "{}: cannot start a new keeper", quote(program)),
                     "jaild goes on without a keeper: should it die, its services are on their own");
  }
  ours.reset();  // only so is the keeper's end seen
  auto client = connect(std::move(theirs));
  // No keeper, and the parent that was to become it is not jaild any more, or will kill us: nothing to go on
  // with.
  if (!client) ::_exit(static_cast<int>(Exit::internal));
  // Should this keeper die too, or not read, fd() will tell, and the caller comes here again.
  for (const auto& [name, fd] : held) {
    const auto stored = client->store(name, fd);
    if (!stored && stored.error().exit != Exit::internal) break;
  }
  client->reaped_.insert(client->reaped_.begin(), reaped_.begin(), reaped_.end());
  *this = std::move(*client);
  return {};
}

}  // namespace jail::keeper
