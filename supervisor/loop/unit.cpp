#include "supervisor/loop/unit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>

#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/loop/log_lines.h"

namespace jail::loop {
namespace {

using service::Action;
using service::Event;
using service::State;

constexpr milliseconds port_interval{20};
constexpr milliseconds slow_start{300};

std::uint64_t since_ms(Time then, Time now) {
  const auto passed = std::chrono::duration_cast<milliseconds>(now - then).count();
  return passed > 0 ? static_cast<std::uint64_t>(passed) : 0;
}

}  // namespace

Unit::Unit(House& house, std::string name)
    : house_(house), name_(std::move(name)), machine_(service::Policy{}) {}

Unit::~Unit() {
  for (Token* token :
       {&wake_timer_, &port_timer_, &launch_timer_, &notify_watch_, &init_watch_, &report_watch_})
    house_.loop.forget(*token);
}

void Unit::request(Event::Kind kind) {
  if (kind == Event::Kind::reload) refused_.clear(), asked_ = std::chrono::system_clock::now();
  dispatch({kind, 0, 0, {}});
}

void Unit::dispatch(Event event) {
  events_.push_back(std::move(event));
  if (std::exchange(dispatching_, true)) return;
  while (!events_.empty()) {
    const Event next = std::move(events_.front());
    events_.pop_front();
    const State before = machine_.state();
    const auto actions = machine_.apply(next, Clock::now());
    state_json_.clear();
    if (machine_.state() != before) tell(before);
    for (const Action& action : actions) perform(action);
  }
  dispatching_ = false;
  arm();
}

void Unit::tell(State before) {
  const auto& data = machine_.snapshot();
  const auto name = service::state_name(data.state);
  switch (data.state) {
    case State::ready:
      house_.log.info("{}: ready after {} ms, pid {}", name_, since_ms(data.started, data.ready_at),
                      data.pid);
      break;
    case State::failed:
      house_.log.error("{}: failed: {}", name_, data.reason);
      break;
    case State::backoff:
      house_.log.warn("{}: {}; next start in {} ms", name_, data.reason,
                      since_ms(data.since, data.deadline.value_or(data.since)));
      break;
    case State::stopped:
      house_.log.info("{}: stopped: {}", name_, data.reason);
      break;
    default:
      house_.log.debug("{}: {} -> {}", name_, service::state_name(before), name);
  }
  if (data.state != State::starting) {
    house_.loop.forget(port_timer_);
    ports_.reset();
  }
  if (data.state != State::starting && data.state != State::ready) {
    check_.reset();
    tell_checked(fmt::format("it is {}", name));
  }
  if (machine_.at_rest()) {
    close_sockets();  // nobody would accept any more
    cgroup_ = Cgroup();
    house_.cgroups.remove(name_);
  }
}

void Unit::perform(const Action& action) {
  switch (action.kind) {
    case Action::Kind::launch:
      return launch();
    case Action::Kind::signal_main:
      return signal_main(action.signal);
    case Action::Kind::kill_all:
      return kill_all();
    case Action::Kind::run_check:
      return run_check();
    case Action::Kind::answer_up:
    case Action::Kind::answer_down:
    case Action::Kind::answer_request:
      return house_.answer(*this, action);
  }
}

void Unit::arm() {
  house_.loop.forget(wake_timer_);
  if (const auto at = machine_.wake())
    wake_timer_ = house_.loop.at(*at, [this] {
      wake_timer_ = 0;
      dispatch({Event::Kind::deadline, 0, 0, {}});
    });
  if (machine_.wants_ports() && port_timer_ == 0) {
    port_timer_ = house_.loop.at(Clock::now(), [this] { look_for_ports(); });
  }
}

void Unit::signal_main(int signal) {
  if (main_ && ::syscall(SYS_pidfd_send_signal, main_.get(), signal, nullptr, 0) == 0) return;
  if (main_ && errno == ESRCH) return;  // its exit is on the way to us
  house_.log.warn("{}: cannot signal the daemon: {}", name_,
                  main_ ? ::strerrordesc_np(errno) : "its pidfd is missing");
  kill_all();
}

void Unit::kill_all() {
  if (init_) ::syscall(SYS_pidfd_send_signal, init_.get(), SIGKILL, nullptr, 0);
  cgroup_.kill_all();
}

void Unit::run_check() {
  if (check_) return;  // the answer of the one that runs is as good
  if (!spec_.check) return check_done({"the generation has no check"});
  // A service without a network is reached by the sockets that it is passed, from the host's.
  const int network = spec_.network == LaunchSpec::Network::none ? -1 : network_.get();
  auto run = CheckRun::start(house_.loop, *spec_.check, network, [this](CheckRun::Outcome outcome) {
    const std::unique_ptr<CheckRun> done = std::move(check_);
    if (!outcome.failure.empty()) house_.log.debug("{}: the check failed: {}", name_, outcome.failure);
    check_done(std::move(outcome));
  });
  if (run)
    check_ = std::move(*run);
  else
    check_done({run.error().message});
}

void Unit::check_done(CheckRun::Outcome outcome) {
  const std::string failure = std::move(outcome.failure);
  if (!outcome.asked && machine_.state() == State::starting)
    house_.log.warn("{}: its readiness does not wait for the check: {}", name_, failure);
  const auto kind = failure.empty() ? Event::Kind::check_passed : Event::Kind::check_failed;
  dispatch({kind, 0, outcome.asked ? 0 : service::check_not_run, failure});
  tell_checked(failure);
}

void Unit::check_now(Checked done) {
  if (machine_.state() != State::ready)
    return done(fmt::format("it is {}", service::state_name(machine_.state())));
  check_waiters_.push_back(std::move(done));
  run_check();
}

void Unit::tell_checked(const std::string& failure) {
  for (const Checked& done : std::exchange(check_waiters_, {})) done(failure);
}

void Unit::look_for_ports() {
  port_timer_ = 0;
  if (!machine_.wants_ports()) return;
  const std::string text = describe(missing_ports());
  port_timer_ = house_.loop.at(Clock::now() + port_interval, [this] { look_for_ports(); });
  if (text.empty() || text != machine_.snapshot().waiting_for) dispatch({Event::Kind::ports, 0, 0, text});
}

/// A passed socket listens from the start: it is the service's as long as one of its processes has it open.
/// (Its cgroup is jaild's, for jaild made it.)
std::vector<Port> Unit::missing_ports() {
  std::vector<Port> missing =
      sockets_.empty() ? std::vector<Port>() : sockets_.abandoned(processes_below(init_pid_));
  std::vector<Port> own = spec_.listen_ports;
  for (const Port& passed : sockets_.ports()) std::erase(own, passed);
  if (own.empty()) return missing;
  if (!ports_) {
    using Network = LaunchSpec::Network;
    const bool alone = spec_.network == Network::none || spec_.network == Network::private_;
    auto probe = ListenerProbe::open(network_.get(), alone, init_pid_, cgroup_.id());
    if (probe)
      ports_ = std::move(*probe);
    else
      house_.log.error("{}: {}", name_, probe.error().message);
  }
  if (ports_) {
    auto answer = ports_->missing(own);
    if (answer)
      own = std::move(*answer);
    else
      house_.log.debug("{}: {}", name_, answer.error().message);
  }
  missing.insert(missing.end(), own.begin(), own.end());
  return missing;
}

const std::string& Unit::state_json() {
  if (state_json_.empty())
    state_json_ = to_json(name_, {machine_.snapshot(), generation_, init_pid_, pid_namespace_});
  return state_json_;
}

/// A daemon that goes on with its old configuration says so in its log; what its check_config did not accept
/// it never saw. (Postfix's waits for a second before it ends.)
std::vector<std::string> Unit::errors_while_ready(Time now) const {
  if (config_check_ && now - config_check_->began() > slow_start) return config_check_->lines();
  if (!refused_.empty()) return refused_;
  return error_lines(log_file(), asked_, control::most_last_lines);
}

control::ServiceStatus Unit::status() const {
  const auto& data = machine_.snapshot();
  const Time now = Clock::now();
  control::ServiceStatus status;
  status.name = name_;
  status.state = service::state_name(data.state);
  if (data.process && spec_.check)
    status.check = data.checked ? "ok" : data.waiting_for.empty() ? "open" : "failed";
  status.pid = data.pid;
  status.generation = data.process ? generation_ : 0;
  if (data.state == State::ready) status.uptime_ms = since_ms(data.started, now);
  status.restarts = data.restarts;
  if (data.state == State::backoff && data.deadline) status.next_start_ms = since_ms(now, *data.deadline);
  status.reason = data.reason;
  if (data.state == State::starting && !data.waiting_for.empty())
    status.reason = "waiting for " + data.waiting_for;
  if (data.state == State::ready && !data.checked && !data.waiting_for.empty())
    status.check_failure = data.waiting_for;
  // One that fails, and fails again, says why while it is being started, too; one that starts well has no
  // time to.
  const bool slow = data.state == State::starting && now - data.started > slow_start;
  if (data.state == State::failed || data.state == State::backoff || slow)
    status.last_lines = last_lines(log_file(), control::most_last_lines);
  else if (data.state == State::ready)
    status.last_lines = errors_while_ready(now);
  if (prepared_) status.not_enforced = prepared_->not_enforced();
  if (!not_limited_.empty()) status.not_enforced.push_back(not_limited_);
  return status;
}

}  // namespace jail::loop
