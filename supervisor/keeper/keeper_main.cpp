// jail-keeper: the process that jaild lives under (keeper.h says what it promises, record.h what it speaks).
// It parses nothing that a service could have written, allocates nothing, and does one thing at a time:
//
//   wait for a signal, a record of jaild, or the end of a backoff
//   -> reap all that ended; start jaild again when it was among them; tell jaild the other ends
//
// usage: jail-keeper JAILD [ARGUMENT...]
//        jail-keeper --take-over OURS THEIRS PID JAILD [ARGUMENT...]     (Client::replace_keeper: jaild PID
//        runs already)
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <utility>

#include "supervisor/keeper/record.h"
#include "supervisor/keeper/table.h"

namespace {

using namespace jail;
using namespace jail::keeper;

constexpr int jaild_socket = 3;  ///< the descriptor that jaild finds
constexpr std::size_t max_words = 256;
constexpr unsigned last_chances = 3;  ///< deaths of a jaild that was asked to end, until we end without it

// On stderr, unless that is a pipe that nobody empties: the keeper waits for no reader.
[[gnu::format(printf, 1, 2)]] void say(const char* format, ...) noexcept {
  pollfd out{STDERR_FILENO, POLLOUT, 0};
  if (::poll(&out, 1, 0) != 1 || (out.revents & POLLOUT) == 0) return;
  std::array<char, 512> line{};
  const char prefix[] = "jail-keeper: ";
  std::memcpy(line.data(), prefix, sizeof prefix);
  std::va_list arguments;
  va_start(arguments, format);
  const int length =
      std::vsnprintf(line.data() + sizeof prefix - 1, line.size() - sizeof prefix, format, arguments);
  va_end(arguments);
  std::size_t size =
      std::min(sizeof prefix - 1 + static_cast<std::size_t>(std::max(length, 0)), line.size() - 2);
  line[size++] = '\n';
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), size);
}

[[noreturn]] void die(Exit exit, const char* step) noexcept {
  say("%s: %s", step, ::strerrordesc_np(errno));
  ::_exit(static_cast<int>(exit));
}

std::int64_t now_ms() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

// The signals that we take part in, all by signalfd.
sigset_t our_signals() noexcept {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGPWR}) ::sigaddset(&set, number);
  return set;
}

union Control {
  cmsghdr align;
  std::array<char, CMSG_SPACE(sizeof(int))> bytes;
};

// Sends `record`, and `fd` unless negative, without waiting. False with errno.
bool send_record(int socket, const Record& record, int fd) noexcept {
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
  return ::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

// Receives one record; `fd` is its descriptor or -1. False when there is none now.
bool receive_record(int socket, Record& record, int& fd) noexcept {
  fd = -1;
  record = Record{};
  iovec part{&record, sizeof record};
  Control control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes.data();
  message.msg_controllen = control.bytes.size();
  const ssize_t got = ::recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got <= 0) return false;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof fd))
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  record.name[name_size - 1] = '\0';
  if (got != sizeof record || (message.msg_flags & MSG_TRUNC) != 0)
    record.op = Op::end;  // nothing that we do
  return true;
}

class Keeper {
 public:
  explicit Keeper(char** words) noexcept : words_(words) {}

  void adopt(int ours, int theirs, pid_t jaild) noexcept;
  [[noreturn]] void run() noexcept;

 private:
  [[noreturn]] void end(int code) noexcept;
  void start_jaild() noexcept;
  void watch(pid_t jaild) noexcept;
  [[noreturn]] void become_jaild(int socket) noexcept;
  void on_signals() noexcept;
  void pass_on(int signal) noexcept;
  void reap() noexcept;
  void on_death(int status) noexcept;
  void recover_unread() noexcept;
  void on_records() noexcept;
  void obey(const Record& record, int fd) noexcept;
  void tell() noexcept;
  bool told(bool sent) noexcept;
  [[nodiscard]] int wait_time() const noexcept;

  char** words_;    ///< jaild's command line
  rlimit files_{};  ///< as we found it, for jaild
  int signals_ = -1;
  int ours_ = -1;    ///< our end of the socket to jaild
  int theirs_ = -1;  ///< a duplicate of jaild's end: what it left unread can be had back
  pid_t jaild_ = -1;
  int jaild_pidfd_ = -1;
  std::int64_t started_ms_ = 0;
  std::int64_t start_at_ms_ = -1;  ///< the end of a backoff; negative: none
  int pending_signal_ = 0;         ///< came while no jaild was there
  unsigned deaths_while_ending_ = 0;
  bool ending_ = false;      ///< SIGTERM, SIGINT or SIGPWR has come
  bool machine_ = false;     ///< we are the init of a machine: the kernel panics where that exits
  bool restart_ = false;     ///< the machine's end is to be a new start: SIGINT, as from Ctrl-Alt-Del
  bool full_ = false;        ///< jaild's socket has no room
  bool deaf_ = false;        ///< jaild has shut its end down
  bool started_ = false;     ///< a jaild has run once: one that cannot be started is no end any more
  std::size_t greeted_ = 0;  ///< of the table: told to this jaild
  bool marked_ = false;      ///< the end marker too
  unsigned long lost_ = 0;   ///< ends that nobody will be told of
  Backoff backoff_;
  Table<4096> table_;
  Ring<4096> ring_;
};

void Keeper::adopt(int ours, int theirs, pid_t jaild) noexcept {
  ours_ = ours;
  theirs_ = theirs;
  watch(jaild);
  started_ms_ = now_ms();
}

void Keeper::watch(pid_t jaild) noexcept {
  jaild_ = jaild;
  jaild_pidfd_ = static_cast<int>(::syscall(SYS_pidfd_open, jaild, 0));
  if (jaild_pidfd_ < 0) say("cannot open a pidfd of jaild: %s", ::strerrordesc_np(errno));
}

void Keeper::run() noexcept {
  // Even PID 1 may be a keeper: it is everybody's parent already. In a container's pid namespace this call of
  // reboot(2) is refused; of a machine it makes Ctrl-Alt-Del a SIGINT for us.
  if (::getpid() == 1)
    machine_ = ::reboot(RB_DISABLE_CAD) == 0;
  else if (::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
    die(Exit::host, "cannot become a subreaper");
  // Nothing but SIGKILL ends us: SIGPIPE, a terminal's signals and strays wait for ever.
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  ::signal(SIGCHLD, SIG_DFL);  // an inherited SIG_IGN would reap behind our back
  const sigset_t set = our_signals();
  signals_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals_ < 0) die(Exit::host, "cannot make a signalfd");
  ::getrlimit(RLIMIT_NOFILE, &files_);
  const rlimit wanted{std::max<rlim_t>(files_.rlim_cur, 8192), std::max<rlim_t>(files_.rlim_max, 8192)};
  const rlimit allowed{std::min(wanted.rlim_cur, files_.rlim_max), files_.rlim_max};
  if (::setrlimit(RLIMIT_NOFILE, &wanted) != 0) ::setrlimit(RLIMIT_NOFILE, &allowed);
  if (jaild_ < 0) start_jaild();
  while (true) {
    reap();
    if (start_at_ms_ >= 0 && now_ms() >= start_at_ms_) start_jaild();
    tell();
    std::array<pollfd, 2> fds{pollfd{signals_, POLLIN, 0}, pollfd{deaf_ ? -1 : ours_, POLLIN, 0}};
    if (full_) fds[1].events |= POLLOUT;
    if (::poll(fds.data(), fds.size(), wait_time()) < 0 && errno != EINTR) die(Exit::internal, "cannot wait");
    if ((fds[1].revents & POLLOUT) != 0) full_ = false;
    if ((fds[1].revents & POLLIN) != 0) on_records();
    if ((fds[1].revents & (POLLHUP | POLLERR)) != 0)
      deaf_ = true;  // jaild has shut it down: it would be ready for ever
    if ((fds[0].revents & POLLIN) != 0) on_signals();
  }
}

void Keeper::end(int code) noexcept {
  if (machine_) {
    say("jaild has ended (%d): %s", code, restart_ ? "restarting the machine" : "powering off");
    ::sync();
    ::reboot(restart_ ? RB_AUTOBOOT : RB_POWER_OFF);
  }
  ::_exit(code);
}

int Keeper::wait_time() const noexcept {
  if (start_at_ms_ < 0) return -1;
  return static_cast<int>(std::clamp<std::int64_t>(start_at_ms_ - now_ms(), 0, Backoff::max_delay_ms));
}

void Keeper::start_jaild() noexcept {
  start_at_ms_ = -1;
  started_ms_ = now_ms();
  std::array<int, 2> pair{-1, -1};
  const bool made = ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) == 0;
  const pid_t child = made ? ::fork() : -1;
  if (child == 0) become_jaild(pair[1]);
  if (child < 0) {
    say("cannot start jaild: %s; trying again", ::strerrordesc_np(errno));
    for (const int fd : pair)
      if (fd >= 0) ::close(fd);
    start_at_ms_ = now_ms() + 1000;
    return;
  }
  ours_ = pair[0];
  theirs_ = pair[1];
  watch(child);
  greeted_ = 0;
  marked_ = full_ = deaf_ = false;
  if (pending_signal_ != 0) pass_on(pending_signal_);
  pending_signal_ = 0;
}

// In the child. Signals that must not kill jaild before it listens to them stay blocked.
void Keeper::become_jaild(int socket) noexcept {
  ::setpgid(0, 0);
  ::setrlimit(RLIMIT_NOFILE, &files_);
  sigset_t set = our_signals();
  ::sigdelset(&set, SIGCHLD);
  ::sigprocmask(SIG_SETMASK, &set, nullptr);
  if (::dup3(socket, jaild_socket, 0) < 0) ::fcntl(socket, F_SETFD, 0);  // EINVAL: it is 3 already
  ::execv(words_[0], words_);
  say("%s: cannot start: %s", words_[0], ::strerrordesc_np(errno));
  // Services may be running: an upgrade under way is no reason to leave them alone.
  ::_exit(static_cast<int>(started_ ? Exit::internal : Exit::host));
}

void Keeper::on_signals() noexcept {
  signalfd_siginfo info{};
  while (::read(signals_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    const int number = static_cast<int>(info.ssi_signo);
    if (number == SIGCHLD) continue;  // reap() asks the kernel each turn: signals may have been merged
    if (number != SIGHUP) ending_ = true;
    if (number == SIGINT) restart_ = true;
    pass_on(number == SIGPWR ? SIGTERM : number);
  }
}

void Keeper::pass_on(int signal) noexcept {
  if (jaild_ > 0) {
    ::syscall(SYS_pidfd_send_signal, jaild_pidfd_, signal, nullptr, 0);
    return;
  }
  if (pending_signal_ == 0 || signal != SIGHUP) pending_signal_ = signal;
  if (ending_ && start_at_ms_ >= 0) start_at_ms_ = 0;  // only a jaild can end its services in order
}

void Keeper::reap() noexcept {
  while (true) {
    int status = 0;
    const pid_t pid = ::waitpid(-1, &status, WNOHANG);
    if (pid < 0 && errno == EINTR) continue;
    if (pid <= 0) return;
    if (pid == jaild_) {
      on_death(status);
      continue;
    }
    if (!ring_.push({pid, status}) && lost_++ % 1000 == 0)
      say("more than 4096 ends wait for jaild: forgot %lu of the oldest", lost_);
    tell();
  }
}

void Keeper::on_death(int status) noexcept {
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  if (code >= 0 && code != static_cast<int>(Exit::internal)) end(code);
  on_records();  // what it stored before it died
  recover_unread();
  ::close(ours_);
  ::close(theirs_);
  ::close(jaild_pidfd_);
  ours_ = theirs_ = jaild_pidfd_ = -1;
  started_ = true;
  const pid_t pid = std::exchange(jaild_, -1);
  if (ending_ && ++deaths_while_ending_ > last_chances) {
    say("jaild keeps dying instead of ending; giving up");
    end(static_cast<int>(Exit::internal));
  }
  const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  std::int64_t delay = backoff_.after_death(now_ms() - started_ms_, killed);
  if (ending_) {
    delay = 0;
    pending_signal_ = SIGTERM;  // it may have died before it could obey
  }
  start_at_ms_ = now_ms() + delay;
  std::array<char, 40> when{"now"};
  if (delay > 0) std::snprintf(when.data(), when.size(), "in %lld ms", static_cast<long long>(delay));
  if (code >= 0)
    say("jaild (pid %d) ended with an internal error (%d); starting it again %s", pid, code, when.data());
  else
    say("jaild (pid %d) was killed by signal %d; starting it again %s", pid, WTERMSIG(status), when.data());
}

// Ends that lie unread in the dead jaild's end of the socket go to the front of the ring, in their order.
void Keeper::recover_unread() noexcept {
  Record record;
  int fd = -1;
  const std::size_t others = ring_.size();
  while (receive_record(theirs_, record, fd)) {
    if (fd >= 0) ::close(fd);
    if (record.op == Op::reaped && !ring_.push({record.pid, record.status})) ++lost_;
  }
  if (ring_.size() == others) return;
  for (std::size_t i = 0; i < others; ++i) {
    const Reaped later = ring_.front();
    ring_.pop();
    ring_.push(later);
  }
}

void Keeper::on_records() noexcept {
  Record record;
  int fd = -1;
  while (ours_ >= 0 && receive_record(ours_, record, fd)) obey(record, fd);
}

void Keeper::obey(const Record& record, int fd) noexcept {
  if (record.op == Op::store && fd >= 0) {
    const std::size_t before = table_.size();
    if (!table_.store(record.name, fd)) say("holding %zu descriptors, no room for another", table_.size());
    // What jaild stores it has: it is not told of it.
    else if (table_.size() > before && greeted_ == before)
      ++greeted_;
    return;
  }
  if (fd >= 0) ::close(fd);
  if (record.op == Op::store) say("a descriptor of jaild's did not arrive: out of descriptors?");
  if (record.op != Op::drop) return;
  const std::size_t before = table_.size();
  if (const std::size_t at = table_.drop(record.name); at != before && at < greeted_) --greeted_;
}

// Tells jaild all that it does not know yet, as far as its socket has room: first what we hold, then the
// ends.
void Keeper::tell() noexcept {
  if (ours_ < 0 || full_) return;
  Record record;
  while (!marked_ && greeted_ < table_.size()) {
    record = Record{};
    record.op = Op::held;
    std::memcpy(record.name, table_[greeted_].name, name_size);
    if (!told(send_record(ours_, record, table_[greeted_].fd))) return;
    ++greeted_;
  }
  while (!ring_.empty()) {
    record = Record{};
    record.op = Op::reaped;
    record.pid = ring_.front().pid;
    record.status = ring_.front().status;
    if (!told(send_record(ours_, record, -1))) return;
    ring_.pop();
  }
  if (marked_) return;
  record = Record{};
  marked_ = told(send_record(ours_, record, -1));
}

bool Keeper::told(bool sent) noexcept {
  if (sent) return true;
  full_ = errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == ETOOMANYREFS;
  if (!full_) say("cannot tell jaild: %s", ::strerrordesc_np(errno));
  return false;
}

// Digits only: an inherited descriptor or a pid.
int number(const char* word) noexcept {
  char* end = nullptr;
  const long value = std::strtol(word, &end, 10);
  return *word != '\0' && *end == '\0' && value >= 0 && value <= 0x7fffffff ? static_cast<int>(value) : -1;
}

}  // namespace

int main(int argc, char** argv) {
  static std::array<char*, max_words + 3> words{};
  static char keeper_fd[] = "--keeper-fd=3";
  const bool take_over = argc > 5 && std::strcmp(argv[1], "--take-over") == 0;
  const int first = take_over ? 5 : 1;
  const int count = argc - first;
  if (count < 1 || count > static_cast<int>(max_words) || argv[first][0] == '-') {
    say("usage: jail-keeper JAILD [ARGUMENT...] (jaild starts it; run jaild instead)");
    return static_cast<int>(Exit::usage);
  }
  words[0] = argv[first];
  words[1] = keeper_fd;
  std::copy(argv + first + 1, argv + argc, words.begin() + 2);
  static Keeper keeper(words.data());
  if (take_over) {
    // At the numbers 3 and 4, whatever they were; nothing else of jaild's stays with us.
    const int ours = ::fcntl(number(argv[2]), F_DUPFD_CLOEXEC, 10);
    const int theirs = ::fcntl(number(argv[3]), F_DUPFD_CLOEXEC, 10);
    const int jaild = number(argv[4]);
    if (ours < 0 || theirs < 0 || jaild <= 0) die(Exit::usage, "--take-over");
    if (::dup3(ours, 3, O_CLOEXEC) < 0 || ::dup3(theirs, 4, O_CLOEXEC) < 0) die(Exit::host, "--take-over");
    ::close_range(5, ~0U, 0);
    keeper.adopt(3, 4, jaild);
  } else {
    ::close_range(3, ~0U, 0);
  }
  keeper.run();
}
