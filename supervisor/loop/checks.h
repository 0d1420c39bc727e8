// Runs the check of a service: a command of the host that asks the service as a client does. Outside the
// jail, as nobody, without capabilities, in the service's network namespace; never a shell; never waited for.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/loop/event_loop.h"
#include "supervisor/spec/launch_spec.h"

namespace jail::loop {

/// One run of a check. Its end kills what still runs: all that it started is in a pid namespace of its own.
class CheckRun {
 public:
  struct Outcome {
    std::string failure;  ///< empty when the check passed, else why not
    bool asked = true;  ///< false: its command cannot be run (126, 127), which says nothing about the service
  };
  /// Called once, from the loop. The run may be destroyed in it.
  using OnDone = std::function<void(Outcome outcome)>;

  /// `network`: a network namespace (nsfs descriptor, borrowed for the call); -1: ours.
  [[nodiscard]] static Result<std::unique_ptr<CheckRun>> start(EventLoop& loop, const Check& check,
                                                               int network, OnDone on_done);
  CheckRun(const CheckRun&) = delete;
  CheckRun& operator=(const CheckRun&) = delete;
  ~CheckRun();

  /// The process is no child of ours any more (we are a fork): its end cannot be learnt.
  static constexpr const char* lost = "its result was lost";

 private:
  CheckRun(EventLoop& loop, const Check& check, OnDone on_done);
  [[nodiscard]] Result<void> watch_all();
  void read_output(UniqueFd& pipe, Token& watch, std::string& into);
  void ended();
  [[nodiscard]] std::string judge(int code, int status) const;
  void finish(Outcome outcome);

  EventLoop& loop_;
  std::string expect_;
  milliseconds timeout_;
  OnDone on_done_;
  UniqueFd process_, stdout_, stderr_;
  Token process_watch_ = 0, stdout_watch_ = 0, stderr_watch_ = 0, timer_ = 0;
  std::string output_, errors_;
};

}  // namespace jail::loop
