// jaild's side of the relay. All calls here return at once; see relay.h for who calls when.
#include "supervisor/log/relay.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <map>
#include <optional>

#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/log/message.h"
#include "supervisor/log/ring.h"
#include "supervisor/log/spawn.h"

namespace jail::log {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds ping_every{500}, answer_within{500}, hello_within{3000}, lived_long{1000};
constexpr milliseconds first_backoff{100}, longest_backoff{5000}, host_every{250};
constexpr milliseconds killed_backoff{50};   // a relay that can run, and is only not let
constexpr milliseconds rotation_pause{250};  // logrotate makes the new file itself, right after the rename
constexpr milliseconds down_limit{2000};     // without a relay for so long: drain and count
constexpr milliseconds soon{10};
constexpr std::size_t notes_limit = 100;
constexpr int messages_a_turn = 256;

}  // namespace

struct Relay::Impl {
  enum class State { down, starting, running, dying };

  struct Jail {
    std::array<UniqueFd, 3> sources;  // socket, stdout, stderr
    UniqueFd file;
    bool sent = false;       // this relay knows the jail
    bool file_sent = false;  // ... and its file
    bool removing = false;
    std::optional<Clock::time_point> look_at;  // the file may have been moved: look then
    std::uint64_t lost = 0;                    // drained here, not told yet
    std::uint64_t told = 0;                    // told, but the relay may die before it has heard
  };

  explicit Impl(Options given) : options(std::move(given)) {}

  Options options;
  UniqueFd program;
  UniqueFd control, pidfd, watcher, host;
  pid_t pid = -1;
  State state = State::down;
  bool host_sent = false;
  bool watching = false;
  unsigned restarts = 0;
  std::uint64_t ping = 0;
  bool ping_open = false;
  milliseconds backoff{0};
  Clock::time_point started{}, start_at{}, pinged{}, host_at{}, down_since = Clock::now();
  std::map<std::string, Jail> jails;
  std::vector<std::string> notes;

  void note(std::string text) {
    if (notes.size() < notes_limit) notes.push_back(std::move(text));
  }

  // ---- the process ----
  void spawn(Clock::time_point now);
  void kill(std::string_view why);
  void reap(Clock::time_point now);
  void see_stop();
  void read_control();
  void handle(const Message& message);
  void check_health(Clock::time_point now);

  // ---- what it is told ----
  void push();
  bool push_host();
  bool push_jail(const std::string& name, Jail& jail);
  Transfer tell(Type type, const std::string& name, std::uint64_t value, std::span<const int> fds = {});

  // ---- sinks ----
  void open_file(const std::string& name, Jail& jail);
  void look_at_file(const std::string& name, Jail& jail);
  void watch_files();
  void read_watcher(Clock::time_point now);
  void connect_host(Clock::time_point now);

  // ---- without a relay ----
  [[nodiscard]] bool must_drain() const {
    return state != State::running && Clock::now() - down_since > down_limit;
  }
  void drain();
};

// ---------------------------------------------------------------------------------------------- the process

void Relay::Impl::spawn(Clock::time_point now) {
  evict_owner(options.ring.get());  // a relay of a jaild before us
  auto process = spawn_relay(program.get(), options.ring.get());
  if (!process) {
    note(process.error().message);
    backoff = std::clamp(backoff * 2, first_backoff, longest_backoff);
    start_at = now + backoff;
    return;
  }
  control = std::move(process->control);
  pidfd = std::move(process->pidfd);
  pid = process->pid;
  state = State::starting;
  started = now;
  ping_open = false;
  host_sent = false;
  for (auto& [name, jail] : jails) {
    jail.sent = jail.file_sent = false;
    jail.lost += std::exchange(jail.told, 0);
  }
}

void Relay::Impl::kill(std::string_view why) {
  if (!pidfd || state == State::dying) return;
  note(fmt::format("log relay {}: {}; replaced", pid, why));
  (void)::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
  if (state == State::running) down_since = Clock::now();
  state = State::dying;
}

// Takes note of a relay that has ended, and starts the next: at once, unless they keep dying young.
void Relay::Impl::reap(Clock::time_point now) {
  if (!pidfd) return;
  pollfd ended{pidfd.get(), POLLIN, 0};
  if (::poll(&ended, 1, 0) <= 0) return;
  siginfo_t info{};
  (void)::waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info,
                 WEXITED | WNOHANG);  // ECHILD: another reaped it
  read_control();                     // its last words
  // One that was ready, or that another than we has killed, says nothing against the next: as long as nobody
  // drains, daemons wait.
  const bool able = state == State::running ||
                    (state == State::starting && info.si_code == CLD_KILLED && info.si_status == SIGKILL);
  if (state == State::running) down_since = now;
  if (state != State::dying)
    note(fmt::format("log relay {} ended ({} {}); replaced", pid,
                     info.si_code == CLD_EXITED ? "status" : "signal", info.si_status));
  const bool young = now - started < lived_long;
  backoff = !young                       ? milliseconds{0}
            : backoff == milliseconds{0} ? milliseconds{1}
            : able                       ? killed_backoff
                                         : std::clamp(backoff * 2, first_backoff, longest_backoff);
  // The first early death may be chance, the next ones are not.
  start_at = backoff <= milliseconds{1} ? now : now + backoff;
  state = State::down;
  pidfd.reset();
  control.reset();
  pid = -1;
  ++restarts;
  if (now >= start_at) spawn(now);
}

void Relay::Impl::see_stop() {
  if (!pidfd || state == State::dying) return;
  siginfo_t info{};
  const int flags = WSTOPPED | WNOHANG | WNOWAIT;
  if (::waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info, flags) == 0 && info.si_pid != 0)
    kill("was stopped");
}

void Relay::Impl::read_control() {
  Message message;
  for (int i = 0; i < messages_a_turn && control; ++i) {
    const Transfer got = receive_message(control.get(), message);
    if (got != Transfer::done) break;  // closed: the pidfd tells more
    handle(message);
  }
}

// The relay may be broken or worse: its names are looked up, its words escaped, and nothing else of it is
// used.
void Relay::Impl::handle(const Message& message) {
  const std::string name = message.get_name();
  const auto jail = jails.find(name);
  switch (message.type) {
    case Type::hello:
      if (state != State::starting) return;
      state = State::running;
      pinged = Clock::now();
      return;
    case Type::pong:
      if (message.value == ping) ping_open = false;
      return;
    case Type::need_host:
      host.reset();
      host_sent = false;
      return;
    case Type::reopen:
      if (jail != jails.end()) look_at_file(name, jail->second);
      return;
    case Type::gone:
      if (jail != jails.end() && jail->second.removing) jails.erase(jail);
      return;
    case Type::counted:
      if (jail != jails.end()) jail->second.told = 0;
      return;
    case Type::note:
      note(fmt::format("log relay: {}{}{}", escape(name), name.empty() ? "" : ": ",
                       escape(message.get_text())));
      return;
    default:
      return;
  }
}

void Relay::Impl::check_health(Clock::time_point now) {
  if (state == State::starting && now - started > hello_within) kill("did not get ready");
  if (state != State::running) return;
  if (ping_open && now - pinged > answer_within) return kill("does not answer");
  if (ping_open || now - pinged < ping_every) return;
  pinged = now;
  ping_open = true;
  ++ping;
  (void)tell(Type::ping, {}, ping);  // a full socket is no answer either
}

// ---------------------------------------------------------------------------------------------- what it is
// told

Transfer Relay::Impl::tell(Type type, const std::string& name, std::uint64_t value,
                           std::span<const int> fds) {
  if (!control) return Transfer::closed;
  Message message;
  message.type = type;
  message.value = value;
  message.set_name(name);
  return send_message(control.get(), message, fds);
}

bool Relay::Impl::push_host() {
  if (host_sent) return true;
  const int fd = host.get();
  const std::span<const int> fds(&fd, host ? 1U : 0U);
  host_sent = tell(Type::host, {}, options.host_syslog.empty() ? 0 : 1, fds) == Transfer::done;
  return host_sent;
}

bool Relay::Impl::push_jail(const std::string& name, Jail& jail) {
  if (!jail.sent) {
    std::array<int, fd_limit> fds{};
    std::size_t count = 0;
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < jail.sources.size(); ++i) {
      if (!jail.sources[i]) continue;
      fds[count++] = jail.sources[i].get();
      bits |= std::uint64_t{1} << i;
    }
    if (jail.file) {
      fds[count++] = jail.file.get();
      bits |= has_file;
    }
    if (tell(Type::add, name, bits, std::span(fds.data(), count)) != Transfer::done) return false;
    if (jail.removing) (void)tell(Type::remove, name, 0);
    jail.sent = true;
    jail.file_sent = jail.file.valid();
  }
  if (!jail.file_sent && jail.file) {
    const int fd = jail.file.get();
    if (tell(Type::file, name, 0, std::span(&fd, 1)) != Transfer::done) return false;
    jail.file_sent = true;
  }
  if (jail.lost != 0 && jail.told == 0 && tell(Type::lost, name, jail.lost) == Transfer::done)
    jail.told = std::exchange(jail.lost, 0);
  return true;
}

// Tells the relay all that it does not know yet; the rest follows when its socket has room.
void Relay::Impl::push() {
  if (!control || state == State::dying || !push_host()) return;
  for (auto& [name, jail] : jails)
    if (!push_jail(name, jail)) return;
}

// ---------------------------------------------------------------------------------------------- sinks

void Relay::Impl::open_file(const std::string& name, Jail& jail) {
  const std::string path = options.log_dir + "/" + name + ".log";
  UniqueFd fd(::open(path.c_str(),
                     O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0640));
  struct stat status {};
  const char* why = nullptr;
  if (!fd || ::fstat(fd.get(), &status) != 0) {
    why = ::strerrordesc_np(errno);
  } else if (!S_ISREG(status.st_mode) || status.st_nlink != 1) {
    why = "it is no regular file with one name";
  }
  if (why != nullptr) {
    if (!jail.look_at) note(fmt::format("{}: cannot open the log file: {}", quote(path), why));
    jail.look_at = Clock::now() + std::chrono::seconds(1);
    return;
  }
  jail.look_at.reset();
  jail.file = std::move(fd);
  jail.file_sent = false;
}

// Opens the file anew if the name does not lead to the one that is open.
void Relay::Impl::look_at_file(const std::string& name, Jail& jail) {
  const std::string path = options.log_dir + "/" + name + ".log";
  struct stat open {
  }, named{};
  const bool same = jail.file && ::fstat(jail.file.get(), &open) == 0 && ::lstat(path.c_str(), &named) == 0 &&
                    open.st_dev == named.st_dev && open.st_ino == named.st_ino;
  if (same) {
    jail.look_at.reset();
  } else {
    open_file(name, jail);
  }
}

void Relay::Impl::watch_files() {
  if (watching || !watcher) return;
  const std::uint32_t events =
      IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
  watching = ::inotify_add_watch(watcher.get(), options.log_dir.c_str(), events) >= 0;
}

void Relay::Impl::read_watcher(Clock::time_point now) {
  alignas(inotify_event) std::array<char, 16 * 1024> buffer;
  const ssize_t count = watcher ? ::read(watcher.get(), buffer.data(), buffer.size()) : 0;
  for (ssize_t at = 0; at + static_cast<ssize_t>(sizeof(inotify_event)) <= count;) {
    const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + at);
    at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
    if ((event->mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF | IN_Q_OVERFLOW)) != 0) {
      if ((event->mask & IN_Q_OVERFLOW) == 0) watching = false;
      for (auto& [name, jail] : jails) jail.look_at = now + rotation_pause;
      continue;
    }
    std::string_view name = event->len != 0 ? std::string_view(event->name) : std::string_view();
    if (!name.ends_with(".log")) continue;
    name.remove_suffix(4);
    const auto jail = jails.find(std::string(name));
    if (jail == jails.end()) continue;
    if ((event->mask & IN_MOVED_FROM) != 0) {
      jail->second.look_at = now + rotation_pause;
    } else {
      look_at_file(jail->first, jail->second);
    }
  }
}

void Relay::Impl::connect_host(Clock::time_point now) {
  if (options.host_syslog.empty() || host || now < host_at) return;
  host_at = now + host_every;
  auto connected = connect_syslog(options.host_syslog);
  if (!connected) return;  // absent is fine
  host = std::move(*connected);
  host_sent = false;
}

// ---------------------------------------------------------------------------------------------- without a
// relay

// No relay can run: what is sent is lost, but counted, and no daemon waits.
void Relay::Impl::drain() {
  for (auto& [name, jail] : jails) jail.lost += drain_and_count(jail.sources);
}

// ---------------------------------------------------------------------------------------------- the public
// side

Relay::Relay(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Relay::Relay(Relay&&) noexcept = default;
Relay& Relay::operator=(Relay&&) noexcept = default;
Relay::~Relay() = default;

Result<Relay> Relay::start(Options options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  JAIL_CHECK(make_dirs_at(AT_FDCWD, impl->options.log_dir, 0755));
  if (!impl->options.ring) {
    JAIL_TRY(ring, Ring::make());
    impl->options.ring = std::move(ring);
  }
  // Away from the numbers that the relay's own descriptors get.
  impl->program.reset(::fcntl(impl->options.program_fd, F_DUPFD_CLOEXEC, 10));
  if (!impl->program) return fail_errno(Exit::internal, errno, "keep the program jail-relay open");
  impl->watcher.reset(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  impl->watch_files();
  const Clock::time_point now = Clock::now();
  impl->connect_host(now);
  impl->spawn(now);
  impl->push();
  return Relay(std::move(impl));
}

Result<void> Relay::add(const std::string& name, const Channel& channel) {
  Impl::Jail jail;
  const std::array<const UniqueFd*, 3> sources = {&channel.syslog, &channel.stdout_read,
                                                  &channel.stderr_read};
  for (std::size_t i = 0; i < sources.size(); ++i) {
    if (!*sources[i]) continue;
    jail.sources[i].reset(::fcntl(sources[i]->get(), F_DUPFD_CLOEXEC, 3));
    if (!jail.sources[i]) return fail_errno(Exit::host, errno, "{}: hand the log channel to the relay", name);
  }
  impl_->open_file(name, jail);
  impl_->jails.insert_or_assign(name, std::move(jail));
  impl_->push();
  return {};
}

void Relay::remove(const std::string& name) {
  const auto jail = impl_->jails.find(name);
  if (jail == impl_->jails.end() || jail->second.removing) return;
  jail->second.removing = true;  // forgotten when the relay has written all
  if (jail->second.sent && impl_->tell(Type::remove, name, 0) != Transfer::done) jail->second.sent = false;
}

std::vector<int> Relay::wait_fds() const {
  std::vector<int> fds;
  for (const UniqueFd* fd : {&impl_->pidfd, &impl_->watcher}) {
    if (*fd) fds.push_back(fd->get());
  }
  // A dead relay's socket stays readable: its pidfd says the rest.
  if (impl_->control && impl_->state != Impl::State::dying) fds.push_back(impl_->control.get());
  if (!impl_->must_drain()) return fds;
  // Not the pipes: what drain() leaves in them would wake us without end. on_time() sees to them.
  for (const auto& [name, jail] : impl_->jails)
    if (jail.sources[0]) fds.push_back(jail.sources[0].get());
  return fds;
}

void Relay::on_readable() {
  const Clock::time_point now = Clock::now();
  impl_->read_control();
  impl_->reap(now);
  impl_->read_watcher(now);
  if (impl_->must_drain()) impl_->drain();
  impl_->push();
}

Clock::time_point Relay::on_time(Clock::time_point now) {
  Impl& impl = *impl_;
  impl.read_control();  // an answer that lies there already counts, however late we are
  impl.reap(now);
  if (impl.state == Impl::State::down && now >= impl.start_at) impl.spawn(now);
  impl.check_health(now);
  impl.watch_files();
  impl.connect_host(now);
  const bool draining = impl.must_drain();
  if (draining) impl.drain();
  Clock::time_point next = now + ping_every;
  auto sooner = [&](Clock::time_point at) { next = std::min(next, std::max(at, now + milliseconds{1})); };
  for (auto& [name, jail] : impl.jails) {
    if (jail.look_at && now >= *jail.look_at) impl.look_at_file(name, jail);
    if (jail.look_at) sooner(*jail.look_at);
  }
  impl.push();
  if (impl.state == Impl::State::down) sooner(impl.start_at);
  if (impl.state == Impl::State::dying || draining) sooner(now + soon);
  if (impl.state == Impl::State::running) sooner(impl.pinged + (impl.ping_open ? answer_within : ping_every));
  if (!impl.options.host_syslog.empty() && !impl.host) sooner(impl.host_at);
  return next;
}

void Relay::on_child_event() {
  impl_->see_stop();
  impl_->reap(Clock::now());
  impl_->push();
}

const UniqueFd& Relay::ring() const {
  return impl_->options.ring;
}
int Relay::pid() const {
  return impl_->pid;
}
unsigned Relay::restarts() const {
  return impl_->restarts;
}
std::vector<std::string> Relay::take_notes() {
  return std::exchange(impl_->notes, {});
}

}  // namespace jail::log
