#include "supervisor/service/machine.h"

#include <algorithm>
#include <array>

namespace jail::service {
namespace {

using Kind = Event::Kind;
using Do = Action::Kind;

/// Between two tries of a check that decides about readiness.
constexpr milliseconds check_retry{250};
constexpr milliseconds first_check{1000};  ///< of one that readiness does not wait for
/// SIGKILL is repeated so often until all are gone (a process may hang in the kernel).
constexpr milliseconds kill_again{1000};

}  // namespace

Policy policy_of(const LaunchSpec& spec) {
  return {spec.restart,
          spec.stop,
          spec.reload,
          spec.ready,
          spec.check.has_value(),
          spec.check ? spec.check->interval : milliseconds{0}};
}

// ---- the table: every pair of state and event has an answer -----------------------------------------------

struct Table {
  using M = Machine;
  using Row = std::array<Machine::Handler, event_count>;
  static constexpr std::array<Row, state_count> rows = {{
      // stopped
      {&M::begin_by_request,  // start
       &M::answer_is_down,    // stop
       &M::begin_by_request,  // restart
       &M::refuse_reload,     // reload
       &M::ignore,            // launch_failed
       &M::ignore,            // refused
       &M::kill_unexpected,   // launched
       &M::ignore,            // setup_failed
       &M::ignore,            // running
       &M::ignore,            // notify_ready
       &M::ignore,            // notify_reloading
       &M::ignore,            // notify_stopping
       &M::ignore,            // notify_status
       &M::ignore,            // main_changed
       &M::ignore,            // ports
       &M::ignore,            // check_passed
       &M::ignore,            // check_failed
       &M::ignore,            // exited
       &M::ignore,            // gone
       &M::ignore},           // deadline
      // starting
      {&M::ignore,             // start: who asks waits with the others
       &M::end_to_stop,        // stop
       &M::end_to_start,       // restart
       &M::refuse_reload,      // reload
       &M::fail_launch,        // launch_failed
       &M::refuse_launch,      // refused
       &M::note_launched,      // launched
       &M::fail_setup,         // setup_failed
       &M::note_running,       // running
       &M::note_ready,         // notify_ready
       &M::ignore,             // notify_reloading
       &M::note_stopping,      // notify_stopping
       &M::note_status,        // notify_status
       &M::note_main,          // main_changed
       &M::note_ports,         // ports
       &M::note_check_passed,  // check_passed
       &M::note_check_failed,  // check_failed
       &M::note_exit,          // exited
       &M::lost,               // gone
       &M::time_starting},     // deadline
      // ready
      {&M::answer_is_up,       // start
       &M::end_to_stop,        // stop
       &M::end_to_start,       // restart
       &M::reload,             // reload
       &M::ignore,             // launch_failed
       &M::ignore,             // refused
       &M::ignore,             // launched
       &M::ignore,             // setup_failed
       &M::ignore,             // running
       &M::note_ready,         // notify_ready: a reload is over
       &M::note_reloading,     // notify_reloading
       &M::note_stopping,      // notify_stopping
       &M::note_status,        // notify_status
       &M::note_main,          // main_changed
       &M::ignore,             // ports
       &M::note_check_passed,  // check_passed
       &M::note_check_failed,  // check_failed
       &M::note_exit,          // exited
       &M::lost,               // gone
       &M::time_ready},        // deadline
      // stopping
      {&M::then_start,       // start
       &M::then_stop,        // stop
       &M::then_start,       // restart
       &M::refuse_reload,    // reload
       &M::finished,         // launch_failed
       &M::finished,         // refused
       &M::kill_unexpected,  // launched
       &M::ignore,           // setup_failed: the first reason stands
       &M::ignore,           // running: SIGKILL is on its way
       &M::ignore,           // notify_ready
       &M::ignore,           // notify_reloading
       &M::ignore,           // notify_stopping
       &M::note_status,      // notify_status
       &M::note_main,        // main_changed
       &M::ignore,           // ports
       &M::ignore,           // check_passed
       &M::ignore,           // check_failed
       &M::note_late_exit,   // exited
       &M::finished,         // gone
       &M::time_stopping},   // deadline
      // backoff
      {&M::begin_by_request,  // start
       &M::to_stopped,        // stop
       &M::begin_by_request,  // restart
       &M::refuse_reload,     // reload
       &M::ignore,            // launch_failed
       &M::ignore,            // refused
       &M::kill_unexpected,   // launched
       &M::ignore,            // setup_failed
       &M::ignore,            // running
       &M::ignore,            // notify_ready
       &M::ignore,            // notify_reloading
       &M::ignore,            // notify_stopping
       &M::ignore,            // notify_status
       &M::ignore,            // main_changed
       &M::ignore,            // ports
       &M::ignore,            // check_passed
       &M::ignore,            // check_failed
       &M::ignore,            // exited
       &M::ignore,            // gone
       &M::time_backoff},     // deadline
      // failed
      {&M::begin_by_request,  // start
       &M::to_stopped,        // stop: clears the mark
       &M::begin_by_request,  // restart
       &M::refuse_reload,     // reload
       &M::ignore,            // launch_failed
       &M::ignore,            // refused
       &M::kill_unexpected,   // launched
       &M::ignore,            // setup_failed
       &M::ignore,            // running
       &M::ignore,            // notify_ready
       &M::ignore,            // notify_reloading
       &M::ignore,            // notify_stopping
       &M::ignore,            // notify_status
       &M::ignore,            // main_changed
       &M::ignore,            // ports
       &M::ignore,            // check_passed
       &M::ignore,            // check_failed
       &M::ignore,            // exited
       &M::ignore,            // gone
       &M::ignore},           // deadline
  }};

  /// A row that is too short would end in null pointers.
  static constexpr bool complete() {
    for (const Row& row : rows)
      for (const Machine::Handler handler : row)
        if (handler == nullptr) return false;
    return true;
  }
};

static_assert(static_cast<std::size_t>(State::failed) + 1 == state_count);
static_assert(static_cast<std::size_t>(Kind::deadline) + 1 == event_count);
static_assert(Table::rows.size() == state_count);
// With UBSan g++ 12 lets no pointer to a member be compared in a constant.
#ifndef __SANITIZE_ADDRESS__
static_assert(Table::complete());
#endif

Actions Machine::apply(const Event& event, Time now) {
  const Handler handler =
      Table::rows[static_cast<std::size_t>(data_.state)][static_cast<std::size_t>(event.kind)];
  (this->*handler)(event, now);
  return std::exchange(actions_, {});
}

std::optional<Time> Machine::wake() const {
  std::optional<Time> at = data_.deadline;
  if (data_.check_at && !checking_ && (!at || *data_.check_at < *at)) at = data_.check_at;
  return at;
}

bool Machine::wants_ports() const {
  // A daemon that says when it is ready has opened by then what it opens, and closed what it does not want.
  const bool said = !policy_.ready.notify || data_.notified;
  return data_.state == State::starting && data_.running && policy_.ready.listen && said && !data_.listening;
}

Machine Machine::restore(Snapshot snapshot, Policy policy, bool alive, Time now, Actions& actions) {
  Machine machine(policy);
  machine.data_ = std::move(snapshot);
  Snapshot& data = machine.data_;
  const bool rests =
      data.state == State::stopped || data.state == State::backoff || data.state == State::failed;
  if (alive && rests) {
    actions = machine.apply({Kind::launched, 0, 0, {}}, now);
  } else if (!alive && !rests) {
    // Between the intent and the launch nothing was lost but time: do it now.
    if (data.state == State::starting && !data.process)
      machine.act(Do::launch);
    else
      machine.apply({Kind::gone, 0, 0, {}}, now).swap(machine.actions_);
    actions = std::exchange(machine.actions_, {});
  } else if (alive) {
    if (data.state == State::starting && !data.process) machine.note_launched({}, now);
    data.process = true;
    if (data.state == State::stopping)
      machine.act(data.killed || !data.running ? Do::kill_all : Do::signal_main, policy.stop.signal);
    if (data.state == State::starting) machine.consider_ready(now);
    actions = std::exchange(machine.actions_, {});
  }
  return machine;
}

// ---- requests ---------------------------------------------------------------------------------------------

void Machine::begin_by_request(const Event&, Time now) {
  forget_failures();
  begin(now);
}

void Machine::begin_again(const Event&, Time now) {
  begin(now);
}

void Machine::answer_is_up(const Event&, Time) {
  answer(Do::answer_up, Exit::ok, {});
}

void Machine::answer_is_down(const Event&, Time) {
  answer(Do::answer_down, Exit::ok, {});
}

void Machine::to_stopped(const Event&, Time now) {
  forget_failures();
  enter(State::stopped, now);
  answer(Do::answer_down, Exit::ok, {});
  answer(Do::answer_up, Exit::busy, "was stopped before it was ready");
}

void Machine::end_to_stop(const Event&, Time now) {
  end(After::stop, now);
}

void Machine::end_to_start(const Event&, Time now) {
  end(After::start, now);
}

void Machine::then_stop(const Event&, Time) {
  data_.after = After::stop;
}

void Machine::then_start(const Event&, Time) {
  data_.after = After::start;
}

void Machine::reload(const Event& event, Time now) {
  switch (policy_.reload.how) {
    case Reload::How::refuse:
      answer(Do::answer_request, Exit::config, "the manifest names no way to reload this service");
      return;
    case Reload::How::signal:
      act(Do::signal_main, policy_.reload.signal);
      answer(Do::answer_request, Exit::ok, {});
      return;
    case Reload::How::restart:
      end_to_start(event, now);
      return;
  }
}

void Machine::refuse_reload(const Event&, Time) {
  answer(Do::answer_request, Exit::answer_no,
         fmt::format("cannot reload: it is {}", state_name(data_.state)));
}

// ---- from launch to readiness
// -------------------------------------------------------------------------------

void Machine::begin(Time now) {
  enter(State::starting, now);
  data_.after = After::policy;
  data_.process = data_.running = data_.notified = data_.listening = data_.checked = data_.reloading = false;
  data_.exit_known = data_.failure = data_.killed = uncheckable_ = false;
  data_.exit_status = 0;
  data_.pid = 0;
  data_.started = now;
  data_.ready_at = {};
  data_.status_text.clear();
  data_.waiting_for.clear();
  act(Do::launch);
}

void Machine::fail_launch(const Event& event, Time now) {
  data_.failure = true;
  data_.reason = event.text;
  decide(now);
}

void Machine::refuse_launch(const Event& event, Time now) {
  data_.failure = true;
  give_up(event.text, now);
}

void Machine::note_launched(const Event&, Time now) {
  data_.process = true;
  data_.started = now;
  if (policy_.ready.timeout.count() > 0) data_.deadline = now + policy_.ready.timeout;
}

void Machine::fail_setup(const Event& event, Time now) {
  data_.failure = true;
  data_.reason = event.text;
  end(After::policy, now);
}

void Machine::note_running(const Event& event, Time now) {
  data_.process = data_.running = true;
  data_.pid = event.pid;
  consider_ready(now);
}

void Machine::note_main(const Event& event, Time) {
  data_.pid = event.pid;
}

void Machine::note_ready(const Event&, Time now) {
  data_.notified = true;
  data_.reloading = false;
  if (data_.state == State::starting) consider_ready(now);
}

void Machine::note_reloading(const Event&, Time) {
  data_.reloading = true;
}

void Machine::note_stopping(const Event&, Time) {
  data_.status_text = "stopping";
}

void Machine::note_status(const Event& event, Time) {
  data_.status_text = event.text;
}

void Machine::note_ports(const Event& event, Time now) {
  data_.listening = event.text.empty();
  data_.waiting_for = event.text;
  if (data_.listening) consider_ready(now);
}

void Machine::note_check_passed(const Event&, Time now) {
  checking_ = uncheckable_ = false;
  data_.checked = true;
  data_.waiting_for.clear();
  data_.check_at.reset();
  if (data_.state == State::starting)
    consider_ready(now);
  else if (policy_.check_interval.count() > 0)
    data_.check_at = now + policy_.check_interval;
}

void Machine::note_check_failed(const Event& event, Time now) {
  checking_ = false;
  data_.checked = false;
  data_.waiting_for = event.text;
  data_.check_at.reset();
  uncheckable_ = event.status == check_not_run;
  if (data_.state == State::starting && uncheckable_)
    consider_ready(now);
  else if (data_.state == State::starting)
    data_.check_at = now + check_retry;
  else if (policy_.check_interval.count() > 0)
    data_.check_at = now + policy_.check_interval;
}

void Machine::consider_ready(Time now) {
  if (!data_.running) return;
  const Ready& wanted = policy_.ready;
  if (wanted.notify && !data_.notified) return;
  if (wanted.listen && !data_.listening) return;
  if (wanted.check && policy_.has_check && !data_.checked && !uncheckable_) {
    // The dearest question comes last: it is asked only when the cheap ones are answered.
    if (!data_.check_at) data_.check_at = now;
    start_check_when_due(now);
    return;
  }
  enter(State::ready, now);
  data_.ready_at = now;
  if (!uncheckable_) data_.waiting_for.clear();
  if (policy_.has_check && policy_.check_interval.count() > 0)
    data_.check_at =
        now + (data_.checked ? policy_.check_interval : std::min(policy_.check_interval, first_check));
  answer(Do::answer_up, Exit::ok, {});
}

void Machine::start_check_when_due(Time now) {
  if (checking_ || !data_.check_at || *data_.check_at > now) return;
  checking_ = true;
  act(Do::run_check);
}

std::string Machine::missing() const {
  if (!data_.running) return "set-up";
  if (policy_.ready.notify && !data_.notified) return "READY=1";
  if (policy_.ready.listen && !data_.listening) return fmt::format("listen {}", data_.waiting_for);
  return fmt::format("the check ({})", data_.waiting_for.empty() ? "no answer yet" : data_.waiting_for);
}

// ---- to the end -------------------------------------------------------------------------------------------

void Machine::end(After after, Time now) {
  const bool had_process = data_.process;
  const bool polite = data_.running && !data_.exit_known && had_process;
  enter(State::stopping, now);
  data_.after = after;
  if (!had_process) {
    // The launch is under way in the driver, which applies launched or launched_failed next.
    data_.deadline = now + kill_again;
    return;
  }
  data_.killed = !polite;
  act(polite ? Do::signal_main : Do::kill_all, polite ? policy_.stop.signal : 0);
  data_.deadline = now + (polite ? policy_.stop.timeout : kill_again);
}

void Machine::note_exit(const Event& event, Time now) {
  data_.exit_known = true;
  data_.exit_status = event.status;
  data_.reason = describe_exit(event.status) + (event.text.empty() ? "" : ", " + event.text);
  if (data_.state == State::starting && WIFEXITED(event.status)) data_.reason += " before it was ready";
  end(After::policy, now);
}

void Machine::note_late_exit(const Event& event, Time now) {
  data_.exit_known = true;
  data_.exit_status = event.status;
  if (!data_.failure && !data_.killed) data_.reason = describe_exit(event.status);
  data_.killed = true;
  act(Do::kill_all);
  data_.deadline = now + kill_again;
}

void Machine::lost(const Event& event, Time now) {
  data_.failure = true;
  data_.reason = event.text.empty() ? "its init was killed, and all processes with it" : event.text;
  decide(now);
}

void Machine::finished(const Event& event, Time now) {
  data_.process = data_.running = false;
  data_.pid = 0;
  switch (data_.after) {
    case After::stop:
      forget_failures();
      enter(State::stopped, now);
      answer(Do::answer_down, Exit::ok, {});
      answer(Do::answer_up, Exit::busy, "was stopped before it was ready");
      return;
    case After::start:
      answer(Do::answer_down, Exit::ok, {});
      begin_by_request(event, now);
      return;
    case After::policy:
      decide(now);
      return;
  }
}

void Machine::kill_unexpected(const Event&, Time now) {
  if (data_.state != State::stopping) {
    enter(State::stopping, now);
    data_.after = After::stop;
  }
  data_.process = data_.killed = true;
  act(Do::kill_all);
  data_.deadline = now + kill_again;
}

/// All are gone, and nobody asked for it: what now?
void Machine::decide(Time now) {
  data_.process = data_.running = false;
  data_.pid = 0;
  const Restart& policy = policy_.restart;
  const bool clean = data_.exit_known && !data_.failure && WIFEXITED(data_.exit_status) &&
                     WEXITSTATUS(data_.exit_status) == 0;
  if (clean && policy.on != Restart::On::always) {
    enter(State::stopped, now);
    answer(Do::answer_down, Exit::ok, {});
    answer(Do::answer_up, Exit::answer_no, data_.reason);
    return;
  }
  if (policy.on == Restart::On::never) return give_up(data_.reason, now);
  if (now - data_.started >= policy.window) data_.failures = 0, data_.recent.clear();
  std::erase_if(data_.recent, [&](Time at) { return at + policy.window <= now; });
  if (data_.recent.size() >= policy.limit)
    return give_up(fmt::format("{}; gave up after {} restarts in {}", data_.reason, data_.recent.size(),
                               describe(policy.window)),
                   now);

  milliseconds delay = std::min(policy.delay, policy.max_delay);
  for (std::uint32_t i = 0; i < data_.failures && delay < policy.max_delay; ++i)
    delay = std::min(delay * 2, policy.max_delay);
  ++data_.failures;
  enter(State::backoff, now);
  data_.deadline = now + delay;
  answer(Do::answer_down, Exit::ok, {});
  answer(Do::answer_up, Exit::answer_no,
         fmt::format("{}; the next try is in {}", data_.reason, describe(delay)));
}

void Machine::give_up(std::string reason, Time now) {
  data_.reason = std::move(reason);
  enter(State::failed, now);
  answer(Do::answer_down, Exit::ok, {});
  answer(Do::answer_up, Exit::answer_no, data_.reason);
}

// ---- time -------------------------------------------------------------------------------------------------

void Machine::time_starting(const Event&, Time now) {
  if (data_.deadline && *data_.deadline <= now) {
    data_.failure = true;
    data_.reason =
        fmt::format("not ready after {}: waiting for {}", describe(policy_.ready.timeout), missing());
    end(After::policy, now);
    return;
  }
  start_check_when_due(now);
}

void Machine::time_ready(const Event&, Time now) {
  start_check_when_due(now);
}

void Machine::time_stopping(const Event&, Time now) {
  if (!data_.deadline || *data_.deadline > now) return;
  if (!data_.killed && !data_.failure)
    data_.reason = fmt::format("did not stop within {} of {}: killed", describe(policy_.stop.timeout),
                               signal_name(policy_.stop.signal));
  data_.killed = true;
  act(Do::kill_all);
  data_.deadline = now + kill_again;
}

void Machine::time_backoff(const Event& event, Time now) {
  if (!data_.deadline || *data_.deadline > now) return;
  data_.recent.push_back(now);
  ++data_.restarts;
  begin_again(event, now);
}

// ---- common -----------------------------------------------------------------------------------------------

void Machine::enter(State state, Time now) {
  data_.state = state;
  data_.since = now;
  data_.deadline.reset();
  data_.check_at.reset();
  checking_ = false;
}

void Machine::forget_failures() {
  data_.failures = 0;
  data_.restarts = 0;
  data_.recent.clear();
}

}  // namespace jail::service
