// One service at run time: its machine, its descriptors, and the system calls that follow from the machine's
// answers. All that must outlive jaild is held by the keeper as "NAME/what" from the moment it exists.
#pragma once

#include <spdlog/logger.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "supervisor/control/protocol.h"
#include "supervisor/log/relay.h"
#include "supervisor/loop/cgroups.h"
#include "supervisor/loop/checks.h"
#include "supervisor/loop/config_check.h"
#include "supervisor/loop/event_loop.h"
#include "supervisor/loop/listeners.h"
#include "supervisor/loop/notify_socket.h"
#include "supervisor/loop/sockets.h"
#include "supervisor/loop/state.h"
#include "supervisor/sandbox/sandbox.h"
#include "supervisor/service/machine.h"
#include "supervisor/spec/instance.h"

namespace jail::loop {

class Unit;

/// What units share; outlives them.
struct House {
  EventLoop& loop;
  spdlog::logger& log;
  const Instance& instance;
  const Cgroups& cgroups;
  int init_program = -1;
  /// Has the keeper hold `fd` (borrowed for as long as it is held), or forget it.
  std::function<void(const std::string& name, int fd)> hold;
  std::function<void(const std::string& name)> release;
  std::function<void(const std::string& name, const log::Channel&)> relay;
  /// The state is written down before it returns.
  std::function<void()> save;
  /// How a process ended that the keeper has reaped, if it is known.
  std::function<std::optional<int>(pid_t pid)> reaped;
  std::function<void(Unit&, const service::Action&)> answer;
  /// Why `unit` must not run now: another one does that excludes it.
  std::function<std::optional<std::string>(const Unit& unit)> excluded;
};

/// Descriptors of a service that an earlier jaild left with the keeper, by what they are ("init", "report"
/// ...).
using Inherited = std::map<std::string, UniqueFd>;

class Unit {
 public:
  Unit(House& house, std::string name);
  Unit(const Unit&) = delete;
  Unit& operator=(const Unit&) = delete;
  ~Unit();

  /// Takes up what an earlier jaild left. Without `state` a life that goes on is ended in order.
  void adopt(const std::optional<ServiceState>& state, Inherited inherited);

  /// Something happened. Actions are done before it returns (unless it is called from within one).
  void dispatch(service::Event event);
  void request(service::Event::Kind kind);

  /// Asks the program of check_config first, where there is one and the service runs: `done` comes later,
  /// with what it says. False where nobody needs to be asked.
  using ConfigChecked = std::function<void(const ConfigCheck::Outcome&)>;
  [[nodiscard]] bool check_config(service::Event::Kind kind, ConfigChecked done);

  /// Has the service asked by its check now; `done` comes later, or at once, with why it does not serve
  /// (empty: it does).
  using Checked = std::function<void(std::string failure)>;
  void check_now(Checked done);

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const service::Machine& machine() const { return machine_; }
  /// Of the generation that runs, or was tried last.
  [[nodiscard]] const LaunchSpec& spec() const { return spec_; }
  [[nodiscard]] pid_t init_pid() const { return init_pid_; }
  [[nodiscard]] const std::optional<log::Channel>& channel() const { return channel_; }
  /// The JSON of its state; built anew only after a change.
  [[nodiscard]] const std::string& state_json();
  [[nodiscard]] bool changed() const { return state_json_.empty(); }
  [[nodiscard]] control::ServiceStatus status() const;

 private:
  // unit.cpp: the machine and its actions
  void perform(const service::Action& action);
  void arm();
  void signal_main(int signal);
  void kill_all();
  void run_check();
  void check_done(CheckRun::Outcome outcome);
  void tell_checked(const std::string& failure);
  void look_for_ports();
  [[nodiscard]] std::vector<Port> missing_ports();
  void tell(service::State before);
  [[nodiscard]] std::vector<std::string> errors_while_ready(service::Time now) const;
  // unit_launch.cpp: from the generation to the process
  void launch();
  void launch_now();
  [[nodiscard]] Result<void> take_generation();
  [[nodiscard]] Result<void> prepare();
  [[nodiscard]] Result<void> make_runtime();
  [[nodiscard]] Result<void> make_log();
  [[nodiscard]] Result<void> make_sockets();
  void close_sockets();
  [[nodiscard]] Sockets::Keep keep();
  [[nodiscard]] Result<void> make_cgroup();
  [[nodiscard]] Result<sandbox::Launched> start_process();
  void take_descriptors(Inherited inherited);
  void find_daemon();
  // unit_events.cpp: what the process says, and its end
  void watch_process();
  void watch_notify();
  void on_report();
  [[nodiscard]] bool next_report();
  void on_notify();
  [[nodiscard]] bool is_ours(const NotifyDatagram& datagram) const;
  void apply_notify(const NotifyDatagram& datagram);
  void on_init_end();
  [[nodiscard]] std::string init_end() const;
  void close_process();
  void find_network();
  [[nodiscard]] std::string held(std::string_view what) const { return fmt::format("{}/{}", name_, what); }
  [[nodiscard]] std::string log_file() const { return house_.instance.log + "/" + name_ + ".log"; }
  [[nodiscard]] std::string runtime_dir() const { return house_.instance.services() + "/" + name_; }

  House& house_;
  std::string name_;
  service::Machine machine_;
  std::deque<service::Event> events_;
  bool dispatching_ = false;
  std::chrono::system_clock::time_point asked_;  ///< to start or to reload, the last time
  std::string state_json_;
  Token wake_timer_ = 0, port_timer_ = 0, launch_timer_ = 0;

  // of a generation
  UniqueFd held_generation_;  ///< that is prepared, or runs: see generation::hold_current()
  std::optional<sandbox::Prepared> prepared_;
  LaunchSpec spec_;
  std::uint64_t prepared_generation_ = 0;
  std::uint64_t generation_ = 0;  ///< that runs
  std::string not_limited_;

  // kept across lives
  std::optional<log::Channel> channel_;
  UniqueFd notify_;
  Token notify_watch_ = 0;
  Sockets sockets_;
  UniqueFd sockets_network_;  ///< the namespace that they are in, where it is the service's own
  unsigned strangers_ = 0;    ///< notify messages that were not ours

  // of one life
  UniqueFd init_, main_, report_;
  pid_t init_pid_ = 0;
  std::string pid_namespace_;
  Cgroup cgroup_;
  std::uint64_t oom_kills_ = 0;
  UniqueFd network_;  ///< the service's network namespace, where it is not ours
  Token init_watch_ = 0, report_watch_ = 0;
  std::unique_ptr<CheckRun> check_;
  std::vector<Checked> check_waiters_;
  std::unique_ptr<ConfigCheck> config_check_;
  std::vector<std::string> refused_;  ///< the words of the last check_config, where it did not pass
  std::optional<ListenerProbe> ports_;
};

}  // namespace jail::loop
