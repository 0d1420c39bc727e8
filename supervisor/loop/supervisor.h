// jaild: services by name, and what connects them with the loop, the keeper, the relay and the control
// socket.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "supervisor/control/server.h"
#include "supervisor/keeper/keeper.h"
#include "supervisor/loop/journal.h"
#include "supervisor/loop/unit.h"

namespace jail::loop {

struct SupervisorOptions {
  Instance instance;
  std::string keeper_program;        ///< absolute
  std::vector<std::string> command;  ///< ours, for the keeper: the program (absolute), then its arguments
  UniqueFd init_program, relay_program;
  UniqueFd keeper_socket;
  bool verbose = false;
};

class Supervisor {
 public:
  /// Takes up what an earlier jaild left, or starts what is enabled; ready to run(). Exit::busy when another
  /// jaild has this instance.
  [[nodiscard]] static Result<std::unique_ptr<Supervisor>> make(SupervisorOptions options);
  /// Until a request or a signal ends it, all services stopped.
  [[nodiscard]] Result<void> run();

  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;
  ~Supervisor();

 private:
  /// A request whose answer is not complete.
  struct Pending {
    control::ClientId client = 0;
    control::Answer answer;
    std::size_t open = 0;  ///< outcomes that are missing
  };
  struct Waiter {
    std::shared_ptr<Pending> pending;
    std::size_t outcome = 0;
  };
  struct Waiters {
    std::vector<Waiter> up, down;
    std::optional<Waiter> request;  ///< the one that is dispatched just now
  };
  using Held = std::map<std::string, UniqueFd>;

  Supervisor(SupervisorOptions options, EventLoop loop, Journal journal, keeper::Client client,
             Cgroups cgroups);

  // supervisor.cpp: the house
  [[nodiscard]] Result<void> set_up();
  [[nodiscard]] Result<void> lock(Held& held);
  [[nodiscard]] Result<void> open_state(Held& held);
  [[nodiscard]] Result<void> start_relay(Held& held);
  void hold(const std::string& name, int fd);
  void release(const std::string& name);
  void save();
  void between_rounds();
  void watch_relay();
  void forget_relay();
  void relay_changed();
  void relay_time();
  void on_signal(int signal);
  [[nodiscard]] Result<void> watch_keeper();
  void on_keeper();
  void replace_keeper();
  void read_reaped();
  void begin_shutdown();
  void end_when_all_rest();

  // supervisor_adopt.cpp: what an earlier jaild left
  void adopt(Held held);
  void end_strays(const std::set<pid_t>& known);
  void start_enabled();

  // supervisor_requests.cpp
  void on_control();
  void handle(const control::Incoming& incoming);
  void change(const control::Incoming& incoming, service::Event::Kind kind);
  void change_one(const std::shared_ptr<Pending>& pending, const std::string& name, service::Event::Kind kind,
                  bool wait);
  void apply(Waiter waiter, const std::string& name, service::Event::Kind kind, bool wait);
  void checked(Waiter waiter, const std::string& name, service::Event::Kind kind, bool wait,
               const ConfigCheck::Outcome& outcome);
  void refuse(Waiter waiter, const std::string& name, service::Event::Kind kind,
              const ConfigCheck::Outcome& outcome);
  void check(const control::Incoming& incoming);
  void set_enabled(const control::Incoming& incoming, bool enabled);
  void status(const control::Incoming& incoming);
  [[nodiscard]] control::ServiceStatus status_of(const std::string& name);
  [[nodiscard]] std::vector<std::string> all_names() const;
  void on_answer(Unit& unit, const service::Action& action);
  void settle(Waiter& waiter, Exit exit, std::string message, std::string hint);
  void finish(Pending& pending);
  [[nodiscard]] Result<Unit*> find_unit(const std::string& name);
  [[nodiscard]] Unit& unit(const std::string& name);

  // supervisor_exclude.cpp: who provides what others provide, too
  [[nodiscard]] std::optional<Error> excluded(const std::string& name,
                                              const std::vector<std::string>& provides) const;
  [[nodiscard]] std::optional<Error> cannot_change(const Unit& unit, service::Event::Kind kind) const;

  SupervisorOptions options_;
  EventLoop loop_;
  Journal journal_;
  keeper::Client keeper_;
  Cgroups cgroups_;
  House house_;
  std::optional<StateFile> state_;
  std::optional<control::Server> server_;
  std::optional<log::Relay> relay_;
  UniqueFd lock_;
  bool first_ = true;                ///< no jaild was here before us
  std::map<std::string, int> held_;  ///< what the keeper holds, by our descriptors
  std::map<pid_t, int> reaped_;      ///< ends that the keeper told of, until somebody asks
  std::map<int, Token> relay_watches_;
  Token relay_timer_ = 0, keeper_watch_ = 0, control_watch_ = 0, end_timer_ = 0;
  bool dirty_ = false;
  bool ending_ = false;
  bool alone_ = false;  ///< no keeper, and none can be started
  std::vector<std::shared_ptr<Pending>> shutdown_waiters_;
  std::map<std::string, std::unique_ptr<Unit>> units_;
  std::map<std::string, Waiters> waiters_;
};

}  // namespace jail::loop
