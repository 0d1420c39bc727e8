// The state machine under a clock of our own: no process, no wait.
#include <csignal>
#include <random>

#include "catch.h"
#include "supervisor/service/machine.h"

namespace jail::service {
namespace {

using Kind = Event::Kind;
using Do = Action::Kind;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int exited_with(int code) {
  return code << 8;
}
constexpr int killed_by(int signal) {
  return signal;
}

/// A machine and its clock.
struct Bench {
  explicit Bench(Policy p = {}) : policy(p), machine(p) {}
  Policy policy;
  Machine machine;
  Time now = Time{} + seconds(1000);

  Actions tell(Kind kind, int number = 0, std::string text = {}) {
    Event event{kind, 0, 0, std::move(text)};
    (kind == Kind::exited || kind == Kind::check_failed ? event.status : event.pid) = number;
    return machine.apply(event, now);
  }
  /// Lets time pass up to each wake within `span`, as a loop would.
  Actions pass(milliseconds span) {
    Actions all;
    const Time end = now + span;
    while (machine.wake() && *machine.wake() <= end) {
      now = std::max(now, *machine.wake());
      for (auto& action : machine.apply({Kind::deadline, 0, 0, {}}, now)) all.push_back(action);
    }
    now = end;
    return all;
  }
  /// From a state without processes to one with a running daemon.
  void run(int pid = 100) {
    if (state() != State::starting) tell(Kind::start);
    tell(Kind::launched);
    tell(Kind::running, pid);
  }
  /// The daemon ends, and its init after it.
  Actions die(int status) {
    tell(Kind::exited, status);
    return tell(Kind::gone);
  }
  State state() const { return machine.state(); }
  const Snapshot& data() const { return machine.snapshot(); }
};

bool has(const Actions& actions, Do kind, int signal = 0) {
  return std::any_of(actions.begin(), actions.end(),
                     [&](const Action& a) { return a.kind == kind && (signal == 0 || a.signal == signal); });
}

std::string answer_of(const Actions& actions, Do kind) {
  for (const Action& action : actions)
    if (action.kind == kind) return action.exit == Exit::ok ? "ok" : action.message;
  return "none";
}

}  // namespace

TEST_CASE("a service without a readiness is ready when it runs") {
  Bench bench;
  CHECK(has(bench.tell(Kind::start), Do::launch));
  CHECK(bench.state() == State::starting);
  bench.tell(Kind::launched);
  CHECK(bench.state() == State::starting);
  CHECK(answer_of(bench.tell(Kind::running, 100), Do::answer_up) == "ok");
  CHECK(bench.state() == State::ready);
  CHECK(bench.data().pid == 100);
  CHECK_FALSE(bench.machine.wake());
  CHECK(answer_of(bench.tell(Kind::start), Do::answer_up) == "ok");
}

TEST_CASE("each readiness is waited for, and all that are wanted together") {
  Policy policy;
  SECTION("notify") {
    policy.ready.notify = true;
    Bench bench(policy);
    bench.run();
    CHECK(bench.state() == State::starting);
    bench.tell(Kind::notify_status, 0, "loading zones");
    CHECK(bench.data().status_text == "loading zones");
    CHECK(has(bench.tell(Kind::notify_ready), Do::answer_up));
    CHECK(bench.state() == State::ready);
  }
  SECTION("notify before the report of the launch was read") {
    policy.ready.notify = true;
    Bench bench(policy);
    bench.tell(Kind::start);
    bench.tell(Kind::launched);
    bench.tell(Kind::notify_ready);
    CHECK(bench.state() == State::starting);
    bench.tell(Kind::running, 7);
    CHECK(bench.state() == State::ready);
  }
  SECTION("listen") {
    policy.ready.listen = true;
    Bench bench(policy);
    CHECK_FALSE(bench.machine.wants_ports());
    bench.run();
    CHECK(bench.machine.wants_ports());
    bench.tell(Kind::ports, 0, "udp:53");
    CHECK(bench.state() == State::starting);
    bench.tell(Kind::ports);
    CHECK(bench.state() == State::ready);
    CHECK_FALSE(bench.machine.wants_ports());
  }
  SECTION("check, asked again until it passes") {
    policy.ready.check = policy.has_check = true;
    policy.check_interval = seconds(10);
    Bench bench(policy);
    bench.tell(Kind::start);
    bench.tell(Kind::launched);
    CHECK(has(bench.tell(Kind::running, 1), Do::run_check));
    bench.tell(Kind::check_failed, 0, "exited with status 9");
    CHECK(has(bench.pass(milliseconds(250)), Do::run_check));
    bench.tell(Kind::check_passed);
    CHECK(bench.state() == State::ready);
    CHECK(bench.data().checked);
    CHECK(has(bench.pass(seconds(10)), Do::run_check));
    CHECK_FALSE(has(bench.pass(seconds(60)), Do::run_check));  // one at a time
    bench.tell(Kind::check_failed, 0, "no answer");
    CHECK(bench.state() == State::ready);
    CHECK_FALSE(bench.data().checked);
    CHECK(has(bench.pass(seconds(10)), Do::run_check));
  }
  SECTION("a check that cannot be run says nothing: readiness does not wait for it") {
    policy.ready.check = policy.has_check = true;
    policy.check_interval = seconds(10);
    Bench bench(policy);
    bench.tell(Kind::start);
    bench.tell(Kind::launched);
    CHECK(has(bench.tell(Kind::running, 1), Do::run_check));
    CHECK(answer_of(bench.tell(Kind::check_failed, check_not_run, "it cannot be run"), Do::answer_up) ==
          "ok");
    CHECK(bench.state() == State::ready);
    CHECK_FALSE(bench.data().checked);
    CHECK(has(bench.pass(seconds(10)), Do::run_check));  // it may have been installed
    // A new life asks anew.
    bench.tell(Kind::gone, 0, "");
    CHECK(bench.state() != State::ready);
  }
  SECTION("a check that readiness does not wait for is first asked soon, then at its interval") {
    policy.has_check = true;
    policy.check_interval = seconds(60);
    Bench bench(policy);
    bench.run();
    CHECK(bench.state() == State::ready);
    CHECK_FALSE(has(bench.pass(milliseconds(900)), Do::run_check));
    CHECK(has(bench.pass(milliseconds(100)), Do::run_check));
    bench.tell(Kind::check_failed, 0, "no answer");
    CHECK_FALSE(has(bench.pass(seconds(59)), Do::run_check));
    CHECK(has(bench.pass(seconds(1)), Do::run_check));
  }
  SECTION("all of them: the check comes last") {
    policy.ready = {true, true, true, seconds(30)};
    policy.has_check = true;
    Bench bench(policy);
    bench.run();
    CHECK_FALSE(bench.machine.wants_ports());  // what it holds before it says so may change
    CHECK_FALSE(has(bench.tell(Kind::notify_ready), Do::run_check));
    CHECK(bench.machine.wants_ports());
    CHECK(has(bench.tell(Kind::ports), Do::run_check));
    bench.tell(Kind::check_passed);
    CHECK(bench.state() == State::ready);
  }
}

TEST_CASE("a start that takes too long is a failure and says what was missing") {
  Policy policy;
  policy.ready.listen = true;
  Bench bench(policy);
  bench.run();
  bench.tell(Kind::ports, 0, "udp:53");
  const Actions late = bench.pass(seconds(30));
  CHECK(has(late, Do::signal_main, SIGTERM));
  CHECK(bench.state() == State::stopping);
  CHECK(bench.data().reason == "not ready after 30s: waiting for listen udp:53");
  bench.tell(Kind::exited, exited_with(0));
  const Actions gone = bench.tell(Kind::gone);
  CHECK(bench.state() == State::backoff);
  CHECK(answer_of(gone, Do::answer_up).find("not ready after 30s") == 0);
}

TEST_CASE("a crash is followed by doubling delays, and by failed at the limit") {
  Bench bench;
  bench.run();
  CHECK(has(bench.tell(Kind::exited, killed_by(SIGKILL)), Do::kill_all));
  CHECK(bench.state() == State::stopping);  // nothing is launched before all are gone
  bench.tell(Kind::gone);
  CHECK(bench.data().reason == "killed by SIGKILL");
  milliseconds delay{100};
  for (unsigned restart = 1; restart <= 5; ++restart, delay *= 2) {
    CAPTURE(restart);
    REQUIRE(bench.state() == State::backoff);
    CHECK_FALSE(has(bench.pass(delay - milliseconds(1)), Do::launch));
    CHECK(has(bench.pass(milliseconds(1)), Do::launch));
    CHECK(bench.data().restarts == restart);
    bench.run();
    bench.die(exited_with(1));
  }
  CHECK(bench.state() == State::failed);
  CHECK(bench.data().reason == "exited with status 1; gave up after 5 restarts in 60s");
  CHECK_FALSE(bench.machine.wake());
  CHECK(has(bench.tell(Kind::start), Do::launch));
  CHECK(bench.data().restarts == 0);
}

TEST_CASE("the delay has a maximum, and a run of a whole window forgets what was") {
  Policy policy;
  policy.restart.max_delay = milliseconds(300);
  policy.restart.limit = 100;
  Bench bench(policy);
  bench.run();
  for (const int expected : {100, 200, 300, 300, 300}) {
    bench.die(exited_with(1));
    CHECK(*bench.machine.wake() - bench.now == milliseconds(expected));
    bench.pass(milliseconds(expected));
    bench.run();
  }
  bench.now += seconds(60);
  bench.die(exited_with(1));
  CHECK(*bench.machine.wake() - bench.now == milliseconds(100));
}

TEST_CASE("crashes far apart never reach the limit") {
  Bench bench;
  bench.run();
  for (int i = 0; i < 40; ++i) {
    bench.now += seconds(13);
    bench.die(exited_with(3));
    REQUIRE(bench.state() == State::backoff);
    bench.pass(seconds(30));
    bench.run();
  }
}

TEST_CASE("restart = never and a clean exit") {
  Policy policy;
  SECTION("clean, on failure") {
    Bench bench(policy);
    bench.run();
    bench.die(exited_with(0));
    CHECK(bench.state() == State::stopped);
    CHECK(bench.data().reason == "exited with status 0");
  }
  SECTION("clean, always") {
    policy.restart.on = Restart::On::always;
    Bench bench(policy);
    bench.run();
    bench.die(exited_with(0));
    CHECK(bench.state() == State::backoff);
  }
  SECTION("failure, never") {
    policy.restart.on = Restart::On::never;
    Bench bench(policy);
    bench.run();
    bench.die(exited_with(2));
    CHECK(bench.state() == State::failed);
    CHECK(bench.data().reason == "exited with status 2");
  }
}

TEST_CASE("a failure before exec is told at once and does not storm") {
  Bench bench;
  bench.tell(Kind::start);
  SECTION("no process was made") {
    const Actions told = bench.tell(Kind::launch_failed, 0, "mount /dev/null: Operation not permitted");
    CHECK(answer_of(told, Do::answer_up).find("mount /dev/null: Operation not permitted") == 0);
    CHECK(bench.state() == State::backoff);
  }
  SECTION("in the child") {
    bench.tell(Kind::launched);
    CHECK(has(bench.tell(Kind::setup_failed, 0, "setresuid: Operation not permitted"), Do::kill_all));
    const Actions told = bench.tell(Kind::gone, 0, "whatever");
    CHECK(answer_of(told, Do::answer_up).find("setresuid: Operation not permitted") == 0);
    CHECK(bench.state() == State::backoff);
  }
  for (int i = 0; i < 5; ++i) {
    REQUIRE(has(bench.pass(seconds(5)), Do::launch));
    bench.tell(Kind::launch_failed, 0, "setresuid: Operation not permitted");
  }
  CHECK(bench.state() == State::failed);
}

TEST_CASE("a start that is refused is not tried again") {
  Bench bench;
  bench.tell(Kind::start);
  const Actions told = bench.tell(Kind::refused, 0, "another one runs");
  CHECK(answer_of(told, Do::answer_up) == "another one runs");
  CHECK(bench.state() == State::failed);
  CHECK_FALSE(bench.machine.wake());
  CHECK(bench.data().restarts == 0);
  CHECK(has(bench.tell(Kind::start), Do::launch));
}

TEST_CASE("stop: the signal, then SIGKILL, again and again until all are gone") {
  Bench bench;
  bench.run();
  CHECK(has(bench.tell(Kind::stop), Do::signal_main, SIGTERM));
  CHECK_FALSE(has(bench.pass(milliseconds(9999)), Do::kill_all));
  CHECK(has(bench.pass(milliseconds(1)), Do::kill_all));
  CHECK(has(bench.pass(seconds(1)), Do::kill_all));
  CHECK(bench.state() == State::stopping);
  bench.tell(Kind::exited, killed_by(SIGKILL));
  CHECK(answer_of(bench.tell(Kind::gone), Do::answer_down) == "ok");
  CHECK(bench.state() == State::stopped);
  CHECK(bench.data().reason == "did not stop within 10s of SIGTERM: killed");
}

TEST_CASE("what is left when the daemon has stopped is killed at once") {
  Bench bench;
  bench.run();
  bench.tell(Kind::stop);
  CHECK(has(bench.tell(Kind::exited, exited_with(0)), Do::kill_all));
  CHECK(bench.state() == State::stopping);
  bench.tell(Kind::gone);
  CHECK(bench.state() == State::stopped);
}

TEST_CASE("requests that cross") {
  Bench bench;
  SECTION("restart while starting") {
    bench.tell(Kind::start);
    bench.tell(Kind::launched);
    CHECK(has(bench.tell(Kind::restart), Do::kill_all));
    CHECK(has(bench.tell(Kind::gone), Do::launch));
    CHECK(bench.state() == State::starting);
  }
  SECTION("start while stopping: up again, without a delay") {
    bench.run();
    bench.tell(Kind::stop);
    bench.tell(Kind::start);
    bench.tell(Kind::exited, exited_with(0));
    CHECK(has(bench.tell(Kind::gone), Do::launch));
  }
  SECTION("stop while it is ended for a restart") {
    bench.run();
    bench.tell(Kind::restart);
    bench.tell(Kind::stop);
    CHECK_FALSE(has(bench.die(exited_with(0)), Do::launch));
    CHECK(bench.state() == State::stopped);
  }
  SECTION("stop in backoff") {
    bench.run();
    bench.die(exited_with(1));
    CHECK(answer_of(bench.tell(Kind::stop), Do::answer_down) == "ok");
    CHECK(bench.state() == State::stopped);
    CHECK_FALSE(bench.machine.wake());
  }
  SECTION("stop of a stopped one is answered") {
    CHECK(answer_of(bench.tell(Kind::stop), Do::answer_down) == "ok");
  }
  SECTION("who waits for ready is told of a stop") {
    bench.tell(Kind::start);
    bench.tell(Kind::launched);
    bench.tell(Kind::stop);
    CHECK(answer_of(bench.tell(Kind::gone), Do::answer_up) == "was stopped before it was ready");
  }
}

TEST_CASE("reload") {
  Policy policy;
  SECTION("by signal") {
    policy.reload = {Reload::How::signal, SIGHUP};
    Bench bench(policy);
    CHECK(answer_of(bench.tell(Kind::reload), Do::answer_request) == "cannot reload: it is stopped");
    bench.run();
    const Actions actions = bench.tell(Kind::reload);
    CHECK(has(actions, Do::signal_main, SIGHUP));
    CHECK(answer_of(actions, Do::answer_request) == "ok");
    bench.tell(Kind::notify_reloading);
    CHECK(bench.data().reloading);
    bench.tell(Kind::notify_ready);
    CHECK_FALSE(bench.data().reloading);
    CHECK(bench.state() == State::ready);
  }
  SECTION("by restart") {
    policy.reload.how = Reload::How::restart;
    Bench bench(policy);
    bench.run();
    CHECK(has(bench.tell(Kind::reload), Do::signal_main, SIGTERM));
    CHECK(has(bench.die(exited_with(0)), Do::launch));
  }
  SECTION("not at all") {
    Bench bench(policy);
    bench.run();
    CHECK(answer_of(bench.tell(Kind::reload), Do::answer_request).find("no way to reload") !=
          std::string::npos);
    CHECK(bench.state() == State::ready);
  }
}

TEST_CASE("READY and exit at once are both seen") {
  Policy policy;
  policy.ready.notify = true;
  Bench bench(policy);
  bench.run();
  CHECK(answer_of(bench.tell(Kind::notify_ready), Do::answer_up) == "ok");
  bench.die(exited_with(1));
  CHECK(bench.state() == State::backoff);
  CHECK(bench.data().reason == "exited with status 1");
}

TEST_CASE("a lost init is a failure with its reason") {
  Bench bench;
  bench.run();
  bench.tell(Kind::gone, 0, "its init was killed by SIGKILL");
  CHECK(bench.state() == State::backoff);
  CHECK(bench.data().reason == "its init was killed by SIGKILL");
}

TEST_CASE("taken up by another jaild") {
  Policy policy;
  policy.ready.notify = true;
  Bench bench(policy);
  Actions actions;
  auto restore = [&](bool alive) {
    return Machine::restore(bench.data(), policy, alive, bench.now, actions);
  };
  SECTION("ready: nothing to do") {
    bench.run();
    bench.tell(Kind::notify_ready);
    CHECK(restore(true).snapshot() == bench.data());
    CHECK(actions.empty());
  }
  SECTION("ready, and meanwhile gone: restarted by policy") {
    bench.run();
    bench.tell(Kind::notify_ready);
    CHECK(restore(false).state() == State::backoff);
  }
  SECTION("killed between the intent and the launch: launched now") {
    bench.tell(Kind::start);
    CHECK(restore(false).state() == State::starting);
    CHECK(has(actions, Do::launch));
  }
  SECTION("killed between the launch and the note of it: not launched twice") {
    bench.tell(Kind::start);
    CHECK(restore(true).snapshot().process);
    CHECK_FALSE(has(actions, Do::launch));
  }
  SECTION("stopping: the signal is sent again") {
    bench.run();
    bench.tell(Kind::stop);
    CHECK(restore(true).state() == State::stopping);
    CHECK(has(actions, Do::signal_main, SIGTERM));
  }
  SECTION("an init that should not be is killed") {
    CHECK(restore(true).state() == State::stopping);
    CHECK(has(actions, Do::kill_all));
  }
  SECTION("a check that was under way is asked again") {
    policy.ready = {false, false, true, seconds(30)};
    policy.has_check = true;
    Bench checked(policy);
    checked.run();
    CHECK(Machine::restore(checked.data(), policy, true, checked.now, actions).state() == State::starting);
    CHECK(has(actions, Do::run_check));
  }
}

// Whatever comes in whatever order: no launch while there are processes, a wake in every state that waits for
// time, and a snapshot that restores to the same machine.
TEST_CASE("random walks keep the promises") {
  for (unsigned seed = 0; seed < 300; ++seed) {
    std::mt19937 random(seed);
    Policy policy;
    policy.ready = {random() % 2 == 0, random() % 2 == 0, random() % 2 == 0, seconds(5)};
    policy.has_check = random() % 2 == 0;
    policy.restart.on = static_cast<Restart::On>(random() % 3);
    Bench bench(policy);
    bool exists = false;
    bool main_lives = false;
    for (int step = 0; step < 300; ++step) {
      auto kind = static_cast<Kind>(random() % event_count);
      if (kind == Kind::launched || kind == Kind::launch_failed || kind == Kind::refused)
        continue;  // the driver's answer to launch
      if (!exists && kind >= Kind::setup_failed && kind != Kind::deadline) continue;
      if (kind == Kind::running) main_lives = true;
      if (kind == Kind::exited && !std::exchange(main_lives, false)) continue;
      if (kind == Kind::gone) exists = main_lives = false;
      bench.now += milliseconds(random() % 2000);
      const Actions actions =
          bench.tell(kind, static_cast<int>(random() % 512), random() % 2 == 0 ? "" : "udp:53");
      if (has(actions, Do::launch)) {
        REQUIRE_FALSE(exists);
        exists = random() % 4 != 0;
        bench.tell(exists ? Kind::launched : Kind::launch_failed, 0, "no");
      }
      if (bench.machine.at_rest() || bench.state() == State::backoff) REQUIRE_FALSE(exists);
      if (bench.state() == State::stopping || bench.state() == State::backoff) REQUIRE(bench.machine.wake());
      if (bench.state() != State::stopping) {
        Actions repeated;
        const Machine twin = Machine::restore(bench.data(), policy, exists, bench.now, repeated);
        REQUIRE_FALSE(has(repeated, Do::launch));
        if (bench.state() == State::ready) REQUIRE(twin.state() == State::ready);
      }
    }
  }
}

TEST_CASE("words") {
  CHECK(describe_exit(killed_by(SIGSEGV)) == "killed by SIGSEGV");
  CHECK(describe_exit(killed_by(SIGSEGV) | 0x80) == "killed by SIGSEGV, core dumped");
  CHECK(describe_exit(exited_with(3)) == "exited with status 3");
  CHECK(describe(milliseconds(1500)) == "1500ms");
  for (std::size_t i = 0; i < state_count; ++i)
    CHECK(state_from_name(state_name(static_cast<State>(i))) == static_cast<State>(i));
  CHECK_FALSE(state_from_name("running"));
}

}  // namespace jail::service
