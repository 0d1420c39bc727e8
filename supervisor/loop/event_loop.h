// The only place that waits: descriptors, signals and timers, each with a callback, on one thread.
#pragma once

#include <sys/epoll.h>
#include <sys/signalfd.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"

namespace jail::loop {

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;

/// Names a watch or a timer; 0 is none. Never used twice.
using Token = std::uint64_t;

class EventLoop {
 public:
  /// `events` as epoll_wait(2) gives them.
  using OnReady = std::function<void(std::uint32_t events)>;
  using OnTime = std::function<void()>;
  using OnSignal = std::function<void(int signal)>;

  [[nodiscard]] static Result<EventLoop> make();

  /// Calls `callback` whenever `fd` (borrowed; forget() it before it is closed) is ready.
  [[nodiscard]] Result<Token> watch(int fd, std::uint32_t events, OnReady callback);

  /// Calls `callback` once, at `when` or soon after.
  Token at(Time when, OnTime callback);

  /// Ends a watch or a timer; 0, and one that is gone, are fine. Sets `token` to 0. A callback may forget
  /// itself.
  void forget(Token& token);

  /// Blocks these signals and hands them to `callback` instead. Once.
  [[nodiscard]] Result<void> on_signals(const std::vector<int>& signals, OnSignal callback);

  /// Called after each round of callbacks, before the loop waits again.
  void before_wait(OnTime callback) { before_wait_ = std::move(callback); }

  /// Waits and calls until stop(). An error is that of epoll_pwait2(2).
  [[nodiscard]] Result<void> run();
  void stop() { stopped_ = true; }

  /// In a child that goes on in the place of this process: signals are waited for anew (an epoll set watches
  /// the signals of the process that added the signalfd).
  [[nodiscard]] Result<void> after_fork();

 private:
  struct Watch {
    int fd = -1;
    std::uint32_t events = 0;
    std::shared_ptr<OnReady> callback;
  };
  EventLoop() = default;
  [[nodiscard]] Result<void> open_signals();
  void read_signals();
  void run_timers();
  [[nodiscard]] Result<void> wait_once();

  UniqueFd epoll_;
  UniqueFd signals_;
  Token signal_watch_ = 0;
  sigset_t signal_set_{};
  OnSignal on_signal_;
  OnTime before_wait_;
  Token next_ = 1;
  bool stopped_ = false;
  std::unordered_map<Token, Watch> watches_;
  std::map<std::pair<Time, Token>, OnTime> timers_;
  std::unordered_map<Token, Time> timer_times_;
};

}  // namespace jail::loop
