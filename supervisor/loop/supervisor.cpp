#include "supervisor/loop/supervisor.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail::loop {
namespace {

constexpr std::chrono::milliseconds last_words{1000};  ///< for clients to take their answers at the end

/// Tells the cgroups of one instance from another's.
std::string instance_id(const Instance& instance) {
  if (instance.home.empty()) return "system";
  std::uint64_t sum = 0xcbf29ce484222325U;
  for (const char c : instance.home) sum = (sum ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return fmt::format("{:016x}", sum);
}

}  // namespace

Supervisor::Supervisor(SupervisorOptions options, EventLoop loop, Journal journal, keeper::Client client,
                       Cgroups cgroups)
    : options_(std::move(options)),
      loop_(std::move(loop)),
      journal_(std::move(journal)),
      keeper_(std::move(client)),
      cgroups_(std::move(cgroups)),
      house_{loop_,
             journal_.log(),
             options_.instance,
             cgroups_,
             options_.init_program.get(),
             [this](const std::string& name, int fd) { hold(name, fd); },
             [this](const std::string& name) { release(name); },
             [this](const std::string& name, const log::Channel& channel) {
               if (!relay_) return;
               if (auto added = relay_->add(name, channel); !added)
                 journal_.log().error("{}: {}", name, added.error().message);
             },
             [this] { save(); },
             [this](pid_t pid) -> std::optional<int> {
               read_reaped();
               const auto found = reaped_.find(pid);
               if (found == reaped_.end()) return std::nullopt;
               const int status = found->second;
               reaped_.erase(found);
               return status;
             },
             [this](Unit& unit, const service::Action& action) { on_answer(unit, action); },
             [this](const Unit& unit) -> std::optional<std::string> {
               const auto error = excluded(unit.name(), unit.spec().provides);
               return error ? std::optional(error->message) : std::nullopt;
             }} {}

Supervisor::~Supervisor() = default;

Result<std::unique_ptr<Supervisor>> Supervisor::make(SupervisorOptions options) {
  const Instance& instance = options.instance;
  for (const auto& [dir, mode] : {std::pair(instance.run, 0755U),
                                  {instance.services(), 0711U},
                                  {instance.log, 0750U},
                                  {instance.enabled(), 0755U}})
    JAIL_CHECK(make_dirs_at(AT_FDCWD, dir, mode));
  JAIL_TRY(journal, Journal::open(instance.log + "/jaild.log", options.verbose));
  JAIL_TRY(loop, EventLoop::make());
  JAIL_TRY(client, keeper::Client::connect(std::move(options.keeper_socket)));
  Cgroups cgroups = Cgroups::find(instance_id(instance));
  std::unique_ptr<Supervisor> supervisor(new Supervisor(
      std::move(options), std::move(loop), std::move(journal), std::move(client), std::move(cgroups)));
  JAIL_CHECK(supervisor->set_up());
  return supervisor;
}

Result<void> Supervisor::set_up() {
  Held held;
  for (keeper::Held& item : keeper_.take_held()) {
    held_[item.name] = item.fd.get();
    held[item.name] = std::move(item.fd);
  }
  JAIL_CHECK(lock(held));
  JAIL_CHECK(loop_.on_signals({SIGTERM, SIGINT, SIGHUP, SIGCHLD}, [this](int signal) { on_signal(signal); }));
  JAIL_CHECK(open_state(held));
  JAIL_CHECK(start_relay(held));
  auto server = control::Server::listen(options_.instance, std::move(held["control"]));
  if (!server) return tl::unexpected(std::move(server).error());
  server_ = std::move(*server);
  hold("control", server_->listening_fd());
  held.erase("control");
  JAIL_TRY(control, loop_.watch(server_->fd(), EPOLLIN, [this](std::uint32_t) { on_control(); }));
  control_watch_ = control;
  JAIL_CHECK(watch_keeper());
  read_reaped();
  if (!cgroups_.available())
    journal_.log().info("no cgroup v2 here: pid namespaces alone hold services together");
  adopt(std::move(held));
  if (first_) start_enabled();
  loop_.before_wait([this] { between_rounds(); });
  return {};
}

Result<void> Supervisor::lock(Held& held) {
  lock_ = std::move(held["lock"]);
  held.erase("lock");
  if (!lock_) {
    const std::string path = options_.instance.run + "/jaild.lock";
    lock_.reset(::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644));
    if (!lock_) return fail_errno(Exit::cannot_create, errno, "{}: cannot open", quote(path));
    if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
      std::string pid = read_all(lock_.get(), 64, path).value_or("");
      while (!pid.empty() && pid.back() == '\n') pid.pop_back();
      return with_hint(fail(Exit::busy, "a jaild runs this instance already, pid {}",
                            pid.empty() ? "unknown" : escape(pid)),
                       "see: jail status; another instance needs another --home");
    }
    hold("lock", lock_.get());
  }
  const std::string pid = fmt::format("{}\n", ::getpid());
  (void)!::ftruncate(lock_.get(), 0);
  (void)!::pwrite(lock_.get(), pid.data(), pid.size(), 0);
  return {};
}

Result<void> Supervisor::open_state(Held& held) {
  const bool inherited = held["state"].valid();
  JAIL_TRY(state, StateFile::open(std::move(held["state"])));
  held.erase("state");
  state_ = std::move(state);
  if (!inherited) hold("state", state_->fd());
  return {};
}

Result<void> Supervisor::start_relay(Held& held) {
  log::Relay::Options options;
  options.program_fd = options_.relay_program.get();
  options.log_dir = options_.instance.log;
  options.ring = std::move(held["ring"]);
  held.erase("ring");
  JAIL_TRY(relay, log::Relay::start(std::move(options)));
  relay_ = std::move(relay);
  hold("ring", relay_->ring().get());
  return {};
}

Result<void> Supervisor::run() {
  journal_.log().info("jaild {} runs, pid {}, keeper {}, {} services", JAIL_VERSION, ::getpid(), ::getppid(),
                      units_.size());
  relay_time();
  auto ran = loop_.run();
  if (ran) cgroups_.remove_base();
  return ran;
}

// ---- what the keeper holds
// ----------------------------------------------------------------------------------

void Supervisor::hold(const std::string& name, int fd) {
  held_[name] = fd;
  if (alone_) return;
  if (auto stored = keeper_.store(name, fd); !stored && stored.error().exit != Exit::unavailable)
    journal_.log().error("{}", stored.error().message);
}

void Supervisor::release(const std::string& name) {
  held_.erase(name);
  if (!alone_) (void)keeper_.drop(name);
}

Result<void> Supervisor::watch_keeper() {
  JAIL_TRY(watched, loop_.watch(keeper_.fd(), EPOLLIN, [this](std::uint32_t) { on_keeper(); }));
  keeper_watch_ = watched;
  return {};
}

void Supervisor::read_reaped() {
  if (alone_) return;
  if (auto ends = keeper_.on_readable())
    for (const keeper::Reaped& end : *ends) reaped_[end.pid] = end.status;
}

void Supervisor::on_keeper() {
  auto ends = keeper_.on_readable();
  if (!ends) return replace_keeper();
  for (const keeper::Reaped& end : *ends)
    for (const auto& [name, unit] : units_)
      if (unit->init_pid() == end.pid) reaped_[end.pid] = end.status;
}

void Supervisor::replace_keeper() {
  loop_.forget(keeper_watch_);
  if (ending_) {
    alone_ = true;
    return;
  }
  journal_.log().warn("the keeper is gone; starting another");
  const std::vector<std::pair<std::string, int>> all(held_.begin(), held_.end());
  auto replaced = keeper_.replace_keeper(options_.keeper_program, options_.command, all);
  if (auto again = loop_.after_fork(); !again) journal_.log().critical("{}", again.error().message);
  if (!replaced) {
    alone_ = true;
    journal_.log().critical("{} ({})", replaced.error().message, replaced.error().hint);
    return;
  }
  if (auto watched = watch_keeper(); !watched) journal_.log().critical("{}", watched.error().message);
  const std::string pid = fmt::format("{}\n", ::getpid());
  (void)!::ftruncate(lock_.get(), 0);
  (void)!::pwrite(lock_.get(), pid.data(), pid.size(), 0);
  journal_.log().info("a new keeper runs, pid {}; jaild has pid {} now", ::getppid(), ::getpid());
}

// ---- between rounds
// -----------------------------------------------------------------------------------------

void Supervisor::save() {
  bool changed = dirty_;
  for (const auto& [name, unit] : units_) changed = changed || unit->changed();
  if (!changed) return;
  std::string text = R"({"services":[)";
  bool first = true;
  for (const auto& [name, unit] : units_) {
    if (!std::exchange(first, false)) text += ',';
    text += unit->state_json();
  }
  text += R"(],"version":1})";
  dirty_ = false;
  if (auto saved = state_->save(text); !saved) journal_.log().error("{}", saved.error().message);
}

void Supervisor::between_rounds() {
  save();
  watch_relay();
  if (ending_) end_when_all_rest();
}

void Supervisor::watch_relay() {
  const std::vector<int> wanted = relay_->wait_fds();
  bool same = wanted.size() == relay_watches_.size();
  for (const int fd : wanted) same = same && relay_watches_.contains(fd);
  if (same) return;
  forget_relay();
  for (const int fd : wanted) {
    auto watched = loop_.watch(fd, EPOLLIN, [this](std::uint32_t) {
      const pid_t before = relay_->pid();
      relay_->on_readable();
      if (relay_->pid() != before) relay_changed();
    });
    if (watched)
      relay_watches_[fd] = *watched;
    else
      journal_.log().error("relay: {}", watched.error().message);
  }
}

// A new relay has new descriptors, perhaps of the old numbers.
void Supervisor::forget_relay() {
  for (auto& [fd, token] : relay_watches_) loop_.forget(token);
  relay_watches_.clear();
}

// The next one may be due long before the time that was asked for while the old one lived.
void Supervisor::relay_changed() {
  forget_relay();
  loop_.forget(relay_timer_);
  relay_time();
}

void Supervisor::relay_time() {
  const pid_t before = relay_->pid();
  const Time next = relay_->on_time(Clock::now());
  if (relay_->pid() != before) forget_relay();
  relay_timer_ = loop_.at(next, [this] { relay_time(); });
}

void Supervisor::on_signal(int signal) {
  switch (signal) {
    case SIGCHLD: {
      // Inits and checks are reaped by their pidfds; the relay asks for its own.
      const pid_t before = relay_->pid();
      relay_->on_child_event();
      if (relay_->pid() != before) relay_changed();
      return;
    }
    case SIGHUP:
      journal_.reopen();
      journal_.log().info("the log was opened again");
      return;
    default:
      journal_.log().info("{}: stopping all services", signal_name(signal));
      begin_shutdown();
  }
}

// ---- the end
// ------------------------------------------------------------------------------------------------

void Supervisor::begin_shutdown() {
  if (std::exchange(ending_, true)) return;
  for (const auto& [name, unit] : units_) unit->request(service::Event::Kind::stop);
}

void Supervisor::end_when_all_rest() {
  if (end_timer_ != 0) {
    if (server_->idle()) loop_.stop();
    return;
  }
  for (const auto& [name, unit] : units_)
    if (!unit->machine().at_rest()) return;
  journal_.log().info("all services are stopped");
  for (const auto& pending : std::exchange(shutdown_waiters_, {})) finish(*pending);
  server_->stop_listening();
  end_timer_ = loop_.at(Clock::now() + last_words, [this] { loop_.stop(); });
  if (server_->idle()) loop_.stop();
}

}  // namespace jail::loop
