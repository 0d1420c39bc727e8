#include "supervisor/control/server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>
#include <optional>

#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/control/address.h"

namespace jail::control {
namespace {

constexpr const char* socket_name = "control";
constexpr const char* lock_name = ".control.lock";
constexpr ClientId listener_id = 1;
constexpr ClientId timer_id = 2;
constexpr int backlog = 64;
constexpr int accepts_per_turn = 16;  ///< so that many clients do not hold up jaild
constexpr std::chrono::milliseconds pause{1000};

UniqueFd open_spare() {
  return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
}

bool add_to_epoll(int epoll, int fd, ClientId id, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = id;
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

// Whether `fd` is a listening SOCK_SEQPACKET Unix socket: what the keeper hands over is checked, not trusted.
bool is_listener(int fd) {
  auto option = [fd](int name) {
    int value = 0;
    socklen_t length = sizeof value;
    return ::getsockopt(fd, SOL_SOCKET, name, &value, &length) == 0 ? value : -1;
  };
  return option(SO_DOMAIN) == AF_UNIX && option(SO_TYPE) == SOCK_SEQPACKET && option(SO_ACCEPTCONN) == 1;
}

// The pid of the process that listens on the socket of `dir`: 0 when unknown, nothing when nobody does.
std::optional<pid_t> who_listens(const Address& address) {
  const UniqueFd probe(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return 0;
  if (::connect(probe.get(), address.get(), address.length) != 0) {
    if (errno == ECONNREFUSED || errno == ENOENT) return std::nullopt;
    return 0;  // EAGAIN: its backlog is full, so it has one
  }
  ucred peer{};
  socklen_t length = sizeof peer;
  return ::getsockopt(probe.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 ? peer.pid : 0;
}

bool is_socket(int dir, const char* name) {
  struct stat status {};
  return ::fstatat(dir, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(status.st_mode);
}

// Two jailds that start at the same time must not both find the socket stale.
Result<UniqueFd> lock_directory(int dir, const std::string& path) {
  UniqueFd lock(::openat(dir, lock_name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!lock)
    return fail_errno(errno == EACCES ? Exit::permission : Exit::cannot_create, errno, "{}/{}: cannot open",
                      path, lock_name);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
    return with_hint(fail(Exit::busy, "{}: another jaild is just starting", path), "try again");
  return lock;
}

Result<UniqueFd> bind_listener(int dir, const std::string& path) {
  const auto lock = lock_directory(dir, path);
  if (!lock) return tl::unexpected(lock.error());
  JAIL_TRY(address, address_at(dir, socket_name));
  if (const auto pid = who_listens(address))
    return with_hint(fail(Exit::busy, "{}/{}: another jaild listens here (pid {})", path, socket_name, *pid),
                     "stop it first, or give this one a --home of its own");
  // Only a socket of ours is ever removed, not what somebody else put there.
  if (is_socket(dir, socket_name) && ::unlinkat(dir, socket_name, 0) != 0)
    return fail_errno(Exit::cannot_create, errno, "{}/{}: cannot remove the stale socket", path, socket_name);
  UniqueFd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener) return fail_errno(Exit::host, errno, "control socket: cannot make a socket");
  // The mode before the bind: the name never exists with a wider one.
  if (::fchmod(listener.get(), 0600) != 0 || ::bind(listener.get(), address.get(), address.length) != 0 ||
      ::listen(listener.get(), backlog) != 0)
    return fail_errno(Exit::cannot_create, errno, "{}/{}: cannot listen", path, socket_name);
  return listener;
}

}  // namespace

Result<Server> Server::listen(const Instance& instance, UniqueFd inherited) {
  Server server;
  JAIL_TRY(dir, make_dirs_at(AT_FDCWD, instance.run, 0755));
  server.dir_ = std::move(dir);
  if (inherited && is_listener(inherited.get()) && is_socket(server.dir_.get(), socket_name)) {
    server.listener_ = std::move(inherited);
  } else {
    inherited.reset();  // else bind_listener() would find it alive
    JAIL_TRY(listener, bind_listener(server.dir_.get(), instance.run));
    server.listener_ = std::move(listener);
  }
  server.spare_ = open_spare();
  server.timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  server.epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!server.spare_ || !server.timer_ || !server.epoll_ ||
      ::fcntl(server.listener_.get(), F_SETFL, O_RDWR | O_NONBLOCK) != 0 ||
      !add_to_epoll(server.epoll_.get(), server.listener_.get(), listener_id, EPOLLIN) ||
      !add_to_epoll(server.epoll_.get(), server.timer_.get(), timer_id, EPOLLIN))
    return fail_errno(Exit::host, errno, "control socket: cannot watch it");
  server.buffer_.resize(max_message + 1);
  return server;
}

std::vector<Incoming> Server::on_readable() {
  std::array<epoll_event, max_clients + 2> events{};
  const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
  std::vector<Incoming> incoming;
  bool accepting = false;
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    if (event.data.u64 == listener_id) accepting = true;
    if (event.data.u64 <= timer_id) continue;  // the timer's expiry is cleared by arming it anew
    const auto client = clients_.find(event.data.u64);
    if (client == clients_.end()) continue;
    bool keep = true;
    if ((event.events & EPOLLOUT) != 0) keep = write_some(client->first, client->second);
    if (keep && (event.events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0)
      keep = read_request(client->first, client->second, incoming);
    if (!keep) clients_.erase(client);
  }
  drop_late();
  // Last, so that the events above cannot name a client that is new.
  if (accepting) accept_all();
  arm_timer();
  return incoming;
}

void Server::accept_all() {
  for (int i = 0; i < accepts_per_turn; ++i)
    if (!accept_one()) return;
}

bool Server::accept_one() {
  UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (socket) {
    greet(std::move(socket));
    return true;
  }
  if (errno == EINTR || errno == ECONNABORTED) return true;
  if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
    return refuse_without_descriptor();
  return false;  // EAGAIN: that was all
}

// The client gets its end of stream at once instead of a wait; jaild gets no descriptor that is readable for
// ever.
bool Server::refuse_without_descriptor() {
  if (spare_) {
    spare_.reset();
    const UniqueFd refused(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }
  spare_ = open_spare();
  if (spare_) return true;
  epoll_event none{};
  none.data.u64 = listener_id;
  paused_ = ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listener_.get(), &none) == 0;
  resume_at_ = Clock::now() + pause;
  return false;
}

// Drops the client that has been idle longest, that is, has the earliest deadline of those that may still
// ask.
bool Server::make_room() {
  if (clients_.size() < max_clients) return true;
  auto oldest = clients_.end();
  for (auto at = clients_.begin(); at != clients_.end(); ++at)
    if (!at->second.asked && at->second.out.empty() &&
        (oldest == clients_.end() || at->second.deadline < oldest->second.deadline))
      oldest = at;
  if (oldest == clients_.end()) return false;
  clients_.erase(oldest);
  return true;
}

void Server::greet(UniqueFd socket) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return;
  Answer refusal;
  if (peer.uid != 0 && peer.uid != ::geteuid()) {
    refusal.exit = static_cast<int>(Exit::permission);
    refusal.message = "jaild answers root only";
    refusal.hint = "ask root, or use sudo";
  } else if (!make_room()) {
    refusal.exit = static_cast<int>(Exit::busy);
    refusal.message = fmt::format("jaild has {} clients that wait for an answer", max_clients);
    refusal.hint = "try again later";
  }
  if (refusal.exit != 0) {
    const std::string text = to_messages(refusal).front();
    ::send(socket.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return;
  }
  const ClientId id = next_id_++;
  Connection client;
  client.fd = std::move(socket);
  client.pid = peer.pid;
  client.uid = peer.uid;
  client.deadline = Clock::now() + client_timeout;
  if (!add_to_epoll(epoll_.get(), client.fd.get(), id, EPOLLIN | EPOLLRDHUP)) return;
  clients_.emplace(id, std::move(client));
}

// False: the client is to be dropped.
bool Server::read_request(ClientId id, Connection& client, std::vector<Incoming>& incoming) {
  const ssize_t got = ::recv(client.fd.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT | MSG_TRUNC);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0 || client.asked || client.closing || !client.out.empty()) return false;
  const auto size = static_cast<std::size_t>(got);
  Result<Request> request =
      size > max_message
          ? fail(Exit::usage, "control socket: the request is larger than {} bytes", max_message)
          : request_from_json({buffer_.data(), size});
  if (!request) {
    Answer refusal;
    refusal.exit = static_cast<int>(request.error().exit);
    refusal.message = request.error().message;
    refusal.hint = request.error().hint;
    client.closing = true;
    return send(id, client, refusal);
  }
  client.asked = true;
  incoming.push_back({id, std::move(*request), client.pid, client.uid});
  return true;
}

void Server::answer(ClientId client, const Answer& answer) {
  const auto found = clients_.find(client);
  if (found == clients_.end() || !found->second.asked) return;
  found->second.asked = false;
  if (!send(client, found->second, answer)) clients_.erase(found);
  arm_timer();
}

bool Server::send(ClientId id, Connection& client, const Answer& answer) {
  client.out = to_messages(answer);
  client.written = 0;
  return write_some(id, client);
}

// False: the client is to be dropped.
bool Server::write_some(ClientId id, Connection& client) {
  const bool waited = client.writing;
  while (client.written < client.out.size()) {
    const std::string& message = client.out[client.written];
    if (::send(client.fd.get(), message.data(), message.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != ENOBUFS) return false;
      break;
    }
    ++client.written;
    client.deadline = Clock::now() + client_timeout;  // it reads: its time begins anew
  }
  client.writing = client.written < client.out.size();
  if (!client.writing) {
    client.out.clear();
    client.written = 0;
    if (client.closing) return false;
  }
  if (client.writing == waited) return true;
  client.deadline = Clock::now() + client_timeout;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP | (client.writing ? EPOLLOUT : 0U);
  event.data.u64 = id;
  return ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, client.fd.get(), &event) == 0;
}

void Server::drop_late() {
  const auto now = Clock::now();
  std::erase_if(clients_,
                [now](const auto& client) { return !client.second.asked && client.second.deadline <= now; });
  if (!paused_ || resume_at_ > now) return;
  if (!spare_) spare_ = open_spare();
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = listener_id;
  if (spare_ && ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listener_.get(), &event) == 0)
    paused_ = false;
  else
    resume_at_ = now + pause;
}

// One timer for the earliest deadline; none while nobody is connected. Arming clears an expiry that was not
// read.
void Server::arm_timer() {
  std::optional<Clock::time_point> next;
  if (paused_) next = resume_at_;
  for (const auto& [id, client] : clients_)
    if (!client.asked && (!next || client.deadline < *next)) next = client.deadline;
  if (next == armed_) return;
  armed_ = next;
  itimerspec when{};
  if (next) {
    const auto left = std::max<std::chrono::nanoseconds>(*next - Clock::now(), std::chrono::milliseconds(1));
    when.it_value.tv_sec = std::chrono::duration_cast<std::chrono::seconds>(left).count();
    when.it_value.tv_nsec = (left % std::chrono::seconds(1)).count();
  }
  ::timerfd_settime(timer_.get(), 0, &when, nullptr);
}

bool Server::idle() const {
  return std::all_of(clients_.begin(), clients_.end(), [](const auto& c) { return c.second.out.empty(); });
}

void Server::stop_listening() {
  if (!listener_) return;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener_.get(), nullptr);
  ::unlinkat(dir_.get(), socket_name, 0);
  ::shutdown(listener_.get(),
             SHUT_RDWR);  // the keeper's duplicate too: a client must not wait in its backlog
  listener_.reset();
}

}  // namespace jail::control
