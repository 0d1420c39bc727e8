// A unit: from the generation on disk to the process, and from what the keeper held back to the process.
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>

#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/loop/socket_open.h"
#include "supervisor/loop/unit.h"
#include "supervisor/sandbox/network.h"

namespace jail::loop {
namespace {

using service::Event;
using service::State;

constexpr milliseconds empty_interval{10};

struct LogEnd {
  const char* name;
  UniqueFd log::Channel::*fd;
};
constexpr std::array<LogEnd, 5> log_ends = {{{"log", &log::Channel::syslog},
                                             {"out.read", &log::Channel::stdout_read},
                                             {"out.write", &log::Channel::stdout_write},
                                             {"err.read", &log::Channel::stderr_read},
                                             {"err.write", &log::Channel::stderr_write}}};

std::string with_hint_text(const Error& error) {
  return error.hint.empty() ? error.message : fmt::format("{} ({})", error.message, error.hint);
}

/// The process behind a pidfd, in our pid namespace; 0 when it was reaped.
pid_t pid_of(int pidfd) {
  const auto text = read_file_at(AT_FDCWD, fmt::format("/proc/self/fdinfo/{}", pidfd), 4096);
  const std::size_t at = text ? text->find("\nPid:") : std::string::npos;
  return at == std::string::npos ? 0 : std::max(0, std::atoi(text->c_str() + at + 5));
}

bool is_socket(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode);
}

}  // namespace

// ---- to the process ---------------------------------------------------------------------------------------

void Unit::launch() {
  house_.save();  // the intent, before the act
  launch_now();
}

void Unit::launch_now() {
  house_.loop.forget(launch_timer_);
  auto failed = [this](std::string why) { dispatch({Event::Kind::launch_failed, 0, 0, std::move(why)}); };
  if (machine_.state() != State::starting) return failed("stopped");
  auto ready = take_generation();
  if (!ready) return failed(with_hint_text(ready.error()));
  if (auto why = house_.excluded(*this)) return dispatch({Event::Kind::refused, 0, 0, std::move(*why)});
  ready = prepare().and_then([this] { return make_cgroup(); });
  if (!ready) return failed(with_hint_text(ready.error()));
  if (cgroup_.populated()) {
    // Processes of a life that we know nothing else of. Never a second copy: they go first.
    house_.log.warn("{}: processes are left in its cgroup; killing them", name_);
    cgroup_.kill_all();
    launch_timer_ = house_.loop.at(Clock::now() + empty_interval, [this] { launch_now(); });
    return;
  }
  refused_.clear();
  asked_ = std::chrono::system_clock::now();
  auto launched = start_process();
  if (!launched) return failed(with_hint_text(launched.error()));
  init_ = std::move(launched->init);
  house_.hold(held("init"), init_.get());
  report_ = std::move(launched->report);
  house_.hold(held("report"), report_.get());
  init_pid_ = launched->init_pid;
  pid_namespace_ = pid_namespace(init_pid_);
  generation_ = prepared_generation_;
  oom_kills_ = cgroup_.oom_kills();
  dispatch({Event::Kind::launched, 0, 0, {}});
  watch_process();
}

Result<void> Unit::take_generation() {
  JAIL_TRY(opened, generation::hold_current(house_.instance, name_));
  if (!prepared_ || prepared_generation_ != opened.number) {
    prepared_.reset();
    JAIL_TRY(prepared, sandbox::Prepared::prepare(opened));
    prepared_ = std::move(prepared);
    held_generation_ = std::move(opened.dir);
    prepared_generation_ = opened.number;
    spec_ = prepared_->spec();
  }
  machine_.set_policy(service::policy_of(spec_));
  return {};
}

Result<void> Unit::prepare() {
  JAIL_CHECK(make_runtime());
  JAIL_CHECK(make_log());
  return make_sockets();
}

Result<void> Unit::make_runtime() {
  JAIL_CHECK(make_dirs_at(AT_FDCWD, runtime_dir(), 0711));
  if (!spec_.ready.notify) return {};
  const std::string path = runtime_dir() + "/notify";
  if (!notify_ || !is_socket(path)) {
    house_.loop.forget(notify_watch_);
    JAIL_TRY(socket, make_notify_socket(path));
    notify_ = std::move(socket);
    house_.hold(held("notify"), notify_.get());
  }
  while (peek_notify(notify_.get())) consume_notify(notify_.get());  // words of an earlier life
  watch_notify();
  return {};
}

Result<void> Unit::make_log() {
  const std::string path = runtime_dir() + "/log";
  if (channel_ && is_socket(path)) {
    // Another generation may have another user; daemons open /dev/stdout by its path.
    for (const UniqueFd* pipe : {&channel_->stdout_write, &channel_->stderr_write})
      if (::fchown(pipe->get(), spec_.credentials.uid, static_cast<gid_t>(-1)) != 0)
        return fail_errno(Exit::permission, errno, "{}: cannot give its output pipes to uid {}", name_,
                          spec_.credentials.uid);
    return {};
  }
  JAIL_TRY(channel, log::make_channel(path, spec_.credentials.uid));
  channel_ = std::move(channel);
  for (const LogEnd& end : log_ends) house_.hold(held(end.name), (*channel_.*end.fd).get());
  house_.relay(name_, *channel_);
  return {};
}

Sockets::Keep Unit::keep() {
  return {[this](const std::string& what, int fd) { house_.hold(held(what), fd); },
          [this](const std::string& what) { house_.release(held(what)); }};
}

/// In the service's network namespace where it has one of its own, which then lives as long as they do. A
/// service without any network gets them from the host's: they are all that it has.
Result<void> Unit::make_sockets() {
  const bool own = spec_.network == LaunchSpec::Network::private_ && !spec_.sockets.empty();
  if (own && !sockets_network_) {
    JAIL_TRY(made, make_network_namespace());
    sockets_network_ = std::move(made);
    house_.hold(held("network"), sockets_network_.get());
  }
  UniqueFd named;  // looked up anew: sockets of one that was replaced meanwhile are opened again
  if (spec_.network == LaunchSpec::Network::named && !spec_.sockets.empty()) {
    JAIL_TRY(opened, sandbox::open_named_network(spec_.network_name));
    named = std::move(opened);
  }
  JAIL_CHECK(sockets_.open(spec_.sockets, own ? sockets_network_.get() : named.get(), keep()));
  if (own || !sockets_network_) return {};
  house_.release(held("network"));
  sockets_network_.reset();
  return {};
}

void Unit::close_sockets() {
  sockets_.close(keep());
  if (!sockets_network_) return;
  house_.release(held("network"));
  sockets_network_.reset();
}

Result<void> Unit::make_cgroup() {
  JAIL_TRY(cgroup, house_.cgroups.renew(name_));
  cgroup_ = std::move(cgroup);
  not_limited_ = house_.cgroups.limit(cgroup_, spec_.limits);
  return {};
}

Result<sandbox::Launched> Unit::start_process() {
  sandbox::LaunchInputs inputs;
  inputs.stdout_fd = channel_->stdout_write.get();
  inputs.stderr_fd = channel_->stderr_write.get();
  inputs.log_socket = runtime_dir() + "/log";
  if (spec_.ready.notify) inputs.notify_socket = runtime_dir() + "/notify";
  inputs.cgroup_fd = cgroup_.fd();
  inputs.init_fd = house_.init_program;
  inputs.network_fd = sockets_network_.get();
  inputs.sockets = sockets_.passed();
  return sandbox::launch(*prepared_, inputs);
}

bool Unit::check_config(Event::Kind kind, ConfigChecked done) {
  const bool asks = kind == Event::Kind::reload || kind == Event::Kind::restart;
  if (!asks || machine_.state() != State::ready) return false;
  // By a signal the program that runs reads it, else that of the generation that follows.
  const bool stays = kind == Event::Kind::reload && spec_.reload.how == Reload::How::signal;
  auto opened = stays ? generation::open_number(house_.instance, name_, generation_)
                      : generation::open_current(house_.instance, name_);
  const auto spec = opened.and_then(read_launch_spec);
  if (!spec || spec->check_config.empty()) return false;  // what is wrong with it, the launch will tell
  if (config_check_) {
    done({"its configuration is being checked for another request", {}});
    return true;
  }
  auto finished = [this, done](ConfigCheck::Outcome outcome) {
    const std::unique_ptr<ConfigCheck> ended = std::move(config_check_);
    refused_ = outcome.failure.empty() ? std::vector<std::string>() : outcome.lines;
    done(outcome);
  };
  sandbox::LaunchInputs inputs;
  inputs.cgroup_fd = cgroup_.fd();
  inputs.init_fd = house_.init_program;
  auto started = sandbox::Prepared::prepare_config_check(*opened).and_then([&](sandbox::Prepared prepared) {
    return ConfigCheck::start(house_.loop, std::move(prepared), inputs, finished);
  });
  if (started)
    config_check_ = std::move(*started);
  else
    done({with_hint_text(started.error()), {}});
  return true;
}

// ---- back to the process
// ------------------------------------------------------------------------------------

void Unit::adopt(const std::optional<ServiceState>& state, Inherited inherited) {
  if (state) {
    generation_ = state->generation;
    init_pid_ = state->init_pid;
    pid_namespace_ = state->pid_namespace;
  }
  // The policy that was in force: of the generation that runs, or of the current one.
  auto opened = generation_ != 0 ? generation::hold_number(house_.instance, name_, generation_)
                                 : generation::hold_current(house_.instance, name_);
  if (opened) {
    auto spec = read_launch_spec(*opened);
    held_generation_ = std::move(opened->dir);
    if (spec)
      spec_ = std::move(*spec);
    else
      house_.log.warn("{}: the generation that runs cannot be read: {}", name_, spec.error().message);
  }
  take_descriptors(std::move(inherited));

  service::Snapshot snapshot = state ? state->machine : service::Snapshot{};
  const bool rests =
      snapshot.state == State::stopped || snapshot.state == State::failed || snapshot.state == State::backoff;
  if (init_ && rests && state) {
    // It ended, and that is written down; only its pidfd was not given back.
    pollfd ended{init_.get(), POLLIN, 0};
    if (::poll(&ended, 1, 0) == 1) close_process();
  }
  if (init_ && !state) {
    house_.log.warn("{}: runs, but nothing is known of it: it is stopped", name_);
    snapshot.state = State::ready;
    snapshot.process = snapshot.running = true;
    snapshot.since = snapshot.started = Clock::now();
  }
  service::Actions actions;
  machine_ = service::Machine::restore(std::move(snapshot), service::policy_of(spec_), init_.valid(),
                                       Clock::now(), actions);
  state_json_.clear();
  if (init_) {
    if (auto cgroup = house_.cgroups.open(name_)) cgroup_ = std::move(*cgroup);
    find_network();
  }
  if (machine_.at_rest()) close_sockets();  // it ended, and that is written down; only they were left
  dispatching_ = true;
  for (const auto& action : actions) perform(action);
  dispatching_ = false;
  if (init_) watch_process();
  if (notify_) watch_notify();
  if (init_) on_report();
  if (init_ && !main_) find_daemon();
  if (init_ && !state) request(Event::Kind::stop);
  if (!events_.empty()) {
    Event next = std::move(events_.front());
    events_.pop_front();
    dispatch(std::move(next));
  }
  arm();
}

void Unit::take_descriptors(Inherited inherited) {
  auto take = [&](const char* what, UniqueFd& into) {
    const auto found = inherited.find(what);
    if (found != inherited.end()) into = std::move(found->second);
  };
  take("init", init_);
  take("main", main_);
  take("report", report_);
  take("notify", notify_);
  take("network", sockets_network_);
  for (auto& [what, fd] : inherited) (void)sockets_.inherit(what, fd);
  log::Channel channel;
  bool whole = true;
  for (const LogEnd& end : log_ends) {
    take(end.name, channel.*end.fd);
    whole = whole && (channel.*end.fd).valid();
  }
  if (whole) channel_ = std::move(channel);
  if (init_ && init_pid_ == 0) init_pid_ = pid_of(init_.get());
  if (init_ && pid_namespace_.empty()) pid_namespace_ = pid_namespace(init_pid_);
}

/// The record `running` was read by a jaild that was killed before it could write it down.
void Unit::find_daemon() {
  struct stat init {};
  struct stat own {};
  if (::fstat(house_.init_program, &init) != 0 || ::stat("/proc/self/exe", &own) != 0) return;
  for (const pid_t pid : processes_below(init_pid_)) {
    struct stat program {};
    if (own_pid(pid) != 2 || ::stat(fmt::format("/proc/{}/exe", pid).c_str(), &program) != 0) continue;
    const auto same = [&](const struct stat& other) {
      return program.st_ino == other.st_ino && program.st_dev == other.st_dev;
    };
    if (same(init) || same(own)) return;  // not executed yet: the record will come
    main_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!main_) return;
    house_.hold(held("main"), main_.get());
    dispatch({Event::Kind::running, pid, 0, {}});
    return;
  }
}

}  // namespace jail::loop
