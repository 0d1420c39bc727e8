// Asks a service's own program whether it would accept its configuration: in the jail, before a reload or
// restart is tried. Never waited for.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/loop/event_loop.h"
#include "supervisor/sandbox/sandbox.h"

namespace jail::loop {

/// One run of a check_config. Its end kills what still runs.
class ConfigCheck {
 public:
  struct Outcome {
    std::string failure;             ///< empty: it is accepted
    std::vector<std::string> lines;  ///< what was said
  };
  /// Called once, from the loop. The run may be destroyed in it.
  using OnDone = std::function<void(Outcome)>;

  /// `inputs` as for a launch, without its outputs.
  [[nodiscard]] static Result<std::unique_ptr<ConfigCheck>> start(EventLoop& loop, sandbox::Prepared prepared,
                                                                  sandbox::LaunchInputs inputs,
                                                                  OnDone on_done);
  ConfigCheck(const ConfigCheck&) = delete;
  ConfigCheck& operator=(const ConfigCheck&) = delete;
  ~ConfigCheck();

  /// What it has said up to now.
  [[nodiscard]] std::vector<std::string> lines() const;
  [[nodiscard]] Clock::time_point began() const { return began_; }

 private:
  ConfigCheck(EventLoop& loop, sandbox::Prepared prepared, OnDone on_done)
      : loop_(loop), prepared_(std::move(prepared)), on_done_(std::move(on_done)) {}
  [[nodiscard]] Result<void> watch();
  void read_output();
  void ended();
  [[nodiscard]] std::string verdict();
  void finish(std::string failure);

  EventLoop& loop_;
  sandbox::Prepared prepared_;
  OnDone on_done_;
  UniqueFd init_, report_, output_;
  Token init_watch_ = 0, output_watch_ = 0, timer_ = 0;
  std::string text_;
  Clock::time_point began_ = Clock::now();
};

}  // namespace jail::loop
