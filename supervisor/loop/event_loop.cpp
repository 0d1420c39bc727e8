#include "supervisor/loop/event_loop.h"

#include <signal.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace jail::loop {

Result<EventLoop> EventLoop::make() {
  EventLoop loop;
  loop.epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!loop.epoll_) return fail_errno(Exit::host, errno, "epoll_create1");
  return loop;
}

Result<Token> EventLoop::watch(int fd, std::uint32_t events, OnReady callback) {
  const Token token = next_++;
  epoll_event event{};
  event.events = events;
  event.data.u64 = token;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return fail_errno(Exit::host, errno, "cannot wait for descriptor {}", fd);
  watches_.emplace(token, Watch{fd, events, std::make_shared<OnReady>(std::move(callback))});
  return token;
}

Token EventLoop::at(Time when, OnTime callback) {
  const Token token = next_++;
  timers_.emplace(std::pair(when, token), std::move(callback));
  timer_times_.emplace(token, when);
  return token;
}

void EventLoop::forget(Token& token) {
  if (const auto watch = watches_.find(token); watch != watches_.end()) {
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, watch->second.fd, nullptr);
    watches_.erase(watch);
  } else if (const auto timer = timer_times_.find(token); timer != timer_times_.end()) {
    timers_.erase({timer->second, token});
    timer_times_.erase(timer);
  }
  token = 0;
}

Result<void> EventLoop::on_signals(const std::vector<int>& signals, OnSignal callback) {
  ::sigemptyset(&signal_set_);
  for (const int signal : signals) ::sigaddset(&signal_set_, signal);
  if (::sigprocmask(SIG_BLOCK, &signal_set_, nullptr) != 0)
    return fail_errno(Exit::host, errno, "sigprocmask");
  on_signal_ = std::move(callback);
  return open_signals();
}

Result<void> EventLoop::open_signals() {
  forget(signal_watch_);
  signals_.reset(::signalfd(-1, &signal_set_, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) return fail_errno(Exit::host, errno, "signalfd");
  JAIL_TRY(token, watch(signals_.get(), EPOLLIN, [this](std::uint32_t) { read_signals(); }));
  signal_watch_ = token;
  return {};
}

Result<void> EventLoop::after_fork() {
  return signals_ ? open_signals() : Result<void>{};
}

void EventLoop::read_signals() {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info))
    on_signal_(static_cast<int>(info.ssi_signo));
}

void EventLoop::run_timers() {
  const Time now = Clock::now();
  // A timer that a callback arms for now runs in the next round: descriptors have their turn.
  const Token last = next_;
  while (!timers_.empty()) {
    const auto first = timers_.begin();
    if (first->first.first > now || first->first.second >= last) break;
    const OnTime callback = std::move(first->second);
    timer_times_.erase(first->first.second);
    timers_.erase(first);
    callback();
  }
}

Result<void> EventLoop::wait_once() {
  timespec timeout{};
  if (!timers_.empty()) {
    const auto left = std::max(timers_.begin()->first.first - Clock::now(), Clock::duration{});
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
    timeout.tv_sec = seconds.count();
    timeout.tv_nsec = std::chrono::nanoseconds(left - seconds).count();
  }
  std::array<epoll_event, 64> events{};
  const int count = ::epoll_pwait2(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                   timers_.empty() ? nullptr : &timeout, nullptr);
  if (count < 0 && errno != EINTR) return fail_errno(Exit::host, errno, "epoll_pwait2");
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events.at(static_cast<std::size_t>(i));
    const auto found = watches_.find(event.data.u64);  // gone when a callback before it forgot it
    if (found == watches_.end()) continue;
    const std::shared_ptr<OnReady> callback = found->second.callback;
    (*callback)(event.events);
  }
  run_timers();
  return {};
}

Result<void> EventLoop::run() {
  while (!stopped_) {
    if (before_wait_) before_wait_();
    if (stopped_) break;
    JAIL_CHECK(wait_once());
  }
  return {};
}

}  // namespace jail::loop
