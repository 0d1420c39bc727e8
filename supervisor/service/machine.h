// The state machine of one service. Pure: no system call, no clock of its own; whoever drives it says what
// happened and when, and does what it answers. All that it knows is one plain struct (Snapshot), so that a
// jaild that was killed at any instant is taken up by the next.
//
//                    start                       all that is wanted is true
//        stopped ------------> starting ------------------------------------> ready
//           ^                  |  ^   ^                                         |
//           |      exit, timeout, |   | delay over          exit, stop, restart |
//           |      stop, restart  |   |                                         |
//           |                  v  |   +-------- backoff <------+                |
//           +-- stop --------- stopping <---------------------------------------+
//                                 |  restart: starting at once |
//                                 +--- failure: policy --------+------> failed (limit reached, or restart =
//                                 never)
//
// Who owns a transition
//   requests (start, stop, restart, reload)  the operator: they say what is wanted, and are always honoured
//   at once or
//                                            when the processes of before are gone
//   exited, setup_failed, gone               the kernel: `gone` alone ends a life. A launch happens in no
//   other state than
//                                            one without processes, so that there is never a second copy
//   deadline                                 this machine: wake() says when it wants one
// States without processes: stopped, backoff, failed. In starting there may be none yet; in `stopping` there
// are some until `gone`.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/spec/launch_spec.h"

namespace jail::service {

using Time = std::chrono::steady_clock::time_point;

enum class State : std::uint8_t { stopped, starting, ready, stopping, backoff, failed };
inline constexpr std::size_t state_count = 6;
[[nodiscard]] std::string_view state_name(State state);
[[nodiscard]] std::optional<State> state_from_name(std::string_view name);

/// What happened. `pid`, `status` and `text` count only where the kind says so.
struct Event {
  enum class Kind : std::uint8_t {
    start,
    stop,
    restart,
    reload,
    launch_failed,  ///< no process exists; text: why
    refused,        ///< none may exist, and trying again changes nothing; text: why
    launched,       ///< the init exists
    setup_failed,   ///< before exec, the init is about to end; text: "setresuid: Operation not permitted"
    running,        ///< the daemon was executed; pid
    notify_ready,
    notify_reloading,
    notify_stopping,
    notify_status,  ///< text
    main_changed,   ///< pid: signals go there from now on
    ports,          ///< text: the ports that nobody listens on yet, "udp:53, tcp:53"; empty: all are there
    check_passed,
    check_failed,  ///< text: why; status: check_not_run where its command cannot be run
    exited,    ///< the daemon; status as waitpid(2) gives it; text: more about it ("out of memory"), or ""
    gone,      ///< the init and all with it; text: what is known of its end, or ""
    deadline,  ///< wake() is reached
  };
  Kind kind = Kind::start;
  pid_t pid = 0;
  int status = 0;
  std::string text;
};
inline constexpr std::size_t event_count = 20;
/// A check that nobody can run says nothing about the service: readiness does not wait for it.
inline constexpr int check_not_run = 127;

/// What the driver has to do, in order.
struct Action {
  enum class Kind : std::uint8_t {
    launch,          ///< then apply launched or launch_failed
    signal_main,     ///< `signal` to the daemon
    kill_all,        ///< SIGKILL to the init, and so to every process
    run_check,       ///< then apply check_passed or check_failed
    answer_up,       ///< to all who wait for the service to be ready
    answer_down,     ///< to all who wait for it to be stopped
    answer_request,  ///< to the request that was applied just now (reload only)
  };
  Kind kind = Kind::launch;
  int signal = 0;
  Exit exit = Exit::ok;  ///< of an answer
  std::string message;   ///< of an answer that is not ok
};
using Actions = std::vector<Action>;

/// The part of a launch spec that decides about life and death.
struct Policy {
  Restart restart;
  Stop stop;
  Reload reload;
  Ready ready;
  bool has_check = false;
  milliseconds check_interval{0};
};
[[nodiscard]] Policy policy_of(const LaunchSpec& spec);

/// What follows when the processes are gone.
enum class After : std::uint8_t { stop, start, policy };

/// All that a machine remembers.
struct Snapshot {
  State state = State::stopped;
  After after = After::stop;
  bool process = false;  ///< the init exists
  bool running = false;  ///< the daemon was executed
  bool notified = false;
  bool listening = false;
  bool checked = false;  ///< the last check passed
  bool reloading = false;
  bool exit_known = false;  ///< exit_status is that of the last daemon
  bool failure = false;     ///< this life ended by a failure of its own, whatever the exit status says
  bool killed = false;      ///< SIGKILL was asked for
  int exit_status = 0;
  pid_t pid = 0;                 ///< of the daemon
  Time since{};                  ///< this state was entered
  Time started{};                ///< the last launch
  Time ready_at{};               ///< became ready, in this life
  std::optional<Time> deadline;  ///< of this state
  std::optional<Time> check_at;
  std::uint64_t restarts = 0;  ///< by policy, since the last start by request
  std::uint32_t failures = 0;  ///< in a row; decides the delay
  std::vector<Time> recent;    ///< restarts within the window
  std::string reason;          ///< of the last end or failure
  std::string waiting_for;     ///< ports that are missing, why the check fails
  std::string status_text;     ///< STATUS= of the daemon, as it came
  bool operator==(const Snapshot&) const = default;
};

class Machine {
 public:
  explicit Machine(Policy policy) : policy_(policy) {}

  /// Takes up a machine of an earlier jaild. `alive`: its init is still there. What that jaild may have left
  /// undone is among the actions, all of which may be done twice.
  [[nodiscard]] static Machine restore(Snapshot snapshot, Policy policy, bool alive, Time now,
                                       Actions& actions);

  /// Counts from the next launch, or the next event, on.
  void set_policy(Policy policy) { policy_ = policy; }

  [[nodiscard]] Actions apply(const Event& event, Time now);

  /// When to apply a `deadline`; it may come late, and too early does no harm.
  [[nodiscard]] std::optional<Time> wake() const;

  /// Somebody should look for listening sockets now and then, and apply `ports`.
  [[nodiscard]] bool wants_ports() const;

  [[nodiscard]] State state() const { return data_.state; }
  [[nodiscard]] const Snapshot& snapshot() const { return data_; }
  /// No process, and none to come.
  [[nodiscard]] bool at_rest() const { return data_.state == State::stopped || data_.state == State::failed; }

 private:
  using Handler = void (Machine::*)(const Event&, Time);
  friend struct Table;

  void ignore(const Event&, Time) {}
  void begin_by_request(const Event&, Time now);
  void begin_again(const Event&, Time now);
  void answer_is_up(const Event&, Time);
  void answer_is_down(const Event&, Time);
  void to_stopped(const Event&, Time now);
  void end_to_stop(const Event&, Time now);
  void end_to_start(const Event&, Time now);
  void then_stop(const Event&, Time);
  void then_start(const Event&, Time);
  void reload(const Event&, Time now);
  void refuse_reload(const Event&, Time);
  void fail_launch(const Event&, Time now);
  void refuse_launch(const Event&, Time now);
  void note_launched(const Event&, Time now);
  void fail_setup(const Event&, Time now);
  void note_running(const Event&, Time now);
  void note_main(const Event&, Time);
  void note_ready(const Event&, Time now);
  void note_reloading(const Event&, Time);
  void note_stopping(const Event&, Time);
  void note_status(const Event&, Time);
  void note_ports(const Event&, Time now);
  void note_check_passed(const Event&, Time now);
  void note_check_failed(const Event&, Time now);
  void note_exit(const Event&, Time now);
  void note_late_exit(const Event&, Time now);
  void lost(const Event&, Time now);
  void finished(const Event&, Time now);
  void kill_unexpected(const Event&, Time now);
  void time_starting(const Event&, Time now);
  void time_ready(const Event&, Time now);
  void time_stopping(const Event&, Time now);
  void time_backoff(const Event&, Time now);

  void enter(State state, Time now);
  void begin(Time now);
  void end(After after, Time now);
  void decide(Time now);
  void give_up(std::string reason, Time now);
  void consider_ready(Time now);
  void start_check_when_due(Time now);
  void forget_failures();
  void act(Action::Kind kind, int signal = 0) { actions_.push_back({kind, signal, Exit::ok, {}}); }
  void answer(Action::Kind kind, Exit exit, std::string message) {
    actions_.push_back({kind, 0, exit, std::move(message)});
  }
  [[nodiscard]] std::string missing() const;

  Policy policy_;
  Snapshot data_;
  bool checking_ = false;     ///< not part of the snapshot: a check dies with its jaild
  bool uncheckable_ = false;  ///< the last check could not be run
  Actions actions_;
};

/// "killed by SIGKILL", "exited with status 1".
[[nodiscard]] std::string describe_exit(int status);
/// "30s", "1500ms".
[[nodiscard]] std::string describe(milliseconds duration);

}  // namespace jail::service
