#include "supervisor/loop/config_check.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "supervisor/base/quote.h"
#include "supervisor/service/machine.h"

namespace jail::loop {
namespace {

constexpr milliseconds patience{10000};
constexpr int rounds_at_once = 64;  // a whole pipe, as large as an unprivileged process can make it
constexpr std::size_t max_output = std::size_t{64} * 1024;

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (end != 0) lines.push_back(escape(text.substr(0, end)));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

}  // namespace

Result<std::unique_ptr<ConfigCheck>> ConfigCheck::start(EventLoop& loop, sandbox::Prepared prepared,
                                                        sandbox::LaunchInputs inputs, OnDone on_done) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(Exit::host, errno, "cannot make a pipe");
  std::unique_ptr<ConfigCheck> run(new ConfigCheck(loop, std::move(prepared), std::move(on_done)));
  run->output_.reset(ends[0]);
  const UniqueFd write_end(ends[1]);
  ::fcntl(run->output_.get(), F_SETFL, O_NONBLOCK);
  inputs.stdout_fd = inputs.stderr_fd = write_end.get();
  JAIL_TRY(launched, sandbox::launch(run->prepared_, inputs));
  run->init_ = std::move(launched.init);
  run->report_ = std::move(launched.report);
  JAIL_CHECK(run->watch());
  return run;
}

Result<void> ConfigCheck::watch() {
  JAIL_TRY(init, loop_.watch(init_.get(), EPOLLIN, [this](std::uint32_t) { ended(); }));
  init_watch_ = init;
  JAIL_TRY(output, loop_.watch(output_.get(), EPOLLIN, [this](std::uint32_t) { read_output(); }));
  output_watch_ = output;
  timer_ = loop_.at(Clock::now() + patience, [this] {
    timer_ = 0;
    finish(fmt::format("no result within {}", service::describe(patience)));
  });
  return {};
}

ConfigCheck::~ConfigCheck() {
  for (Token* token : {&init_watch_, &output_watch_, &timer_}) loop_.forget(*token);
  if (!init_) return;
  ::syscall(SYS_pidfd_send_signal, init_.get(), SIGKILL, nullptr, 0);
  // Its death may take a moment, and nothing here waits: the loop reaps it.
  struct Remains {
    UniqueFd init;
    Token watch = 0;
  };
  auto remains = std::make_shared<Remains>(Remains{std::move(init_), 0});
  const auto watched = loop_.watch(remains->init.get(), EPOLLIN, [&loop = loop_, remains](std::uint32_t) {
    siginfo_t info{};
    (void)::waitid(P_PIDFD, static_cast<id_t>(remains->init.get()), &info, WEXITED | WNOHANG);
    loop.forget(remains->watch);
  });
  if (watched) remains->watch = *watched;
}

std::vector<std::string> ConfigCheck::lines() const {
  return lines_of(text_);
}

void ConfigCheck::read_output() {
  std::array<char, 16384> bytes{};
  ssize_t got = 1;
  // Who writes without end gets no more than its share of the loop.
  for (int round = 0; round < rounds_at_once && got > 0; ++round) {
    got = ::read(output_.get(), bytes.data(), bytes.size());
    if (got > 0 && text_.size() < max_output) text_.append(bytes.data(), static_cast<std::size_t>(got));
  }
  if (got == 0) loop_.forget(output_watch_);
}

void ConfigCheck::ended() {
  siginfo_t info{};
  (void)::waitid(P_PIDFD, static_cast<id_t>(init_.get()), &info, WEXITED | WNOHANG);
  loop_.forget(init_watch_);
  init_.reset();
  read_output();
  finish(verdict());
}

/// From the records of the launch: without the one of its end nobody knows what it said.
std::string ConfigCheck::verdict() {
  for (;;) {
    auto report = sandbox::read_report(report_.get());
    if (!report || !*report) return "it ended, and nobody knows how";
    if ((*report)->kind == sandbox::Report::Kind::failed)
      return fmt::format("{}: {}", (*report)->step, ::strerrordesc_np((*report)->error));
    if ((*report)->kind == sandbox::Report::Kind::exited)
      return (*report)->status == 0 ? std::string() : service::describe_exit((*report)->status);
  }
}

void ConfigCheck::finish(std::string failure) {
  for (Token* token : {&init_watch_, &output_watch_, &timer_}) loop_.forget(*token);
  const OnDone done = std::move(on_done_);
  done({std::move(failure), lines()});  // may destroy *this
}

}  // namespace jail::loop
