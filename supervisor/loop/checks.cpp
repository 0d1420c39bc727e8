#include "supervisor/loop/checks.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <vector>

#include "supervisor/base/quote.h"
#include "supervisor/service/machine.h"

namespace jail::loop {
namespace {

constexpr uid_t nobody = 65534;
constexpr std::size_t max_output = 64 * 1024;
constexpr int exit_setup = 125;  ///< as env(1) and our own `run` have it
constexpr int exit_not_executable = 126;
constexpr int exit_not_found = 127;
constexpr const char* path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

struct Pipe {
  UniqueFd read, write;
};

Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(Exit::host, errno, "cannot make a pipe");
  Pipe pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
  ::fcntl(pipe.read.get(), F_SETFL, O_NONBLOCK);
  return pipe;
}

[[noreturn]] void child_fails(const char* step, int status = exit_setup) {
  const int error = errno;
  ::dprintf(STDERR_FILENO, "%s: %s\n", step, ::strerrordesc_np(error));
  ::_exit(status);
}

/// Gives up all that root has, for good.
void become_nobody() {
  if (::setgroups(0, nullptr) != 0) child_fails("setgroups");
  for (unsigned capability = 0; ::prctl(PR_CAPBSET_READ, capability) >= 0; ++capability)
    if (::prctl(PR_CAPBSET_DROP, capability) != 0) child_fails("drop the bounding set");
  if (::setresgid(nobody, nobody, nobody) != 0) child_fails("setresgid");
  if (::setresuid(nobody, nobody, nobody) != 0) child_fails("setresuid");
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> none{};
  if (::syscall(SYS_capset, &header, none.data()) != 0) child_fails("capset");
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) child_fails("no_new_privs");
}

/// In the child: never returns. We have one thread, so the C library may be used after the fork.
[[noreturn]] void run_command(const std::vector<char*>& argv, int network, int out, int err) {
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signal : {SIGPIPE, SIGHUP, SIGCHLD}) ::signal(signal, SIG_DFL);
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0 || ::dup2(null, STDIN_FILENO) < 0 || ::dup2(err, STDERR_FILENO) < 0 ||
      ::dup2(out, STDOUT_FILENO) < 0)
    child_fails("descriptors");
  if (network >= 0 && ::setns(network, CLONE_NEWNET) != 0) child_fails("enter the network namespace");
  ::setsid();
  ::umask(022);
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  if (::chdir("/") != 0) child_fails("chdir /");
  become_nobody();
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::syscall(SYS_close_range, 3U, ~0U, 0U) != 0) child_fails("close_range");
  std::array<char*, 3> environment{const_cast<char*>(path), const_cast<char*>("LC_ALL=C.UTF-8"), nullptr};
  ::environ = environment.data();  // execvpe would search the PATH of the old one
  ::execvp(argv[0], argv.data());
  child_fails(argv[0], errno == ENOENT ? exit_not_found : exit_not_executable);
}

/// The last line that is not empty, fit for a message.
std::string last_line(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' '))
    text.remove_suffix(1);
  const std::size_t start = text.rfind('\n');
  return escape(text.substr(start == std::string_view::npos ? 0 : start + 1).substr(0, 200));
}

}  // namespace

CheckRun::CheckRun(EventLoop& loop, const Check& check, OnDone on_done)
    : loop_(loop), expect_(check.expect), timeout_(check.timeout), on_done_(std::move(on_done)) {}

Result<std::unique_ptr<CheckRun>> CheckRun::start(EventLoop& loop, const Check& check, int network,
                                                  OnDone on_done) {
  if (check.command.empty()) return fail(Exit::config, "the check has no command");
  JAIL_TRY(out, make_pipe());
  JAIL_TRY(err, make_pipe());
  std::vector<char*> argv;
  for (const std::string& word : check.command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);

  int pidfd = -1;
  clone_args args{};
  args.flags = CLONE_PIDFD | CLONE_NEWPID;
  args.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  const long pid = ::syscall(SYS_clone3, &args, sizeof args);
  if (pid < 0) return fail_errno(Exit::host, errno, "cannot start the check");
  if (pid == 0) run_command(argv, network, out.write.get(), err.write.get());

  std::unique_ptr<CheckRun> run(new CheckRun(loop, check, std::move(on_done)));
  run->process_.reset(pidfd);
  run->stdout_ = std::move(out.read);
  run->stderr_ = std::move(err.read);
  JAIL_CHECK(run->watch_all());
  return run;
}

Result<void> CheckRun::watch_all() {
  JAIL_TRY(process, loop_.watch(process_.get(), EPOLLIN, [this](std::uint32_t) { ended(); }));
  process_watch_ = process;
  JAIL_TRY(out, loop_.watch(stdout_.get(), EPOLLIN,
                            [this](std::uint32_t) { read_output(stdout_, stdout_watch_, output_); }));
  stdout_watch_ = out;
  JAIL_TRY(err, loop_.watch(stderr_.get(), EPOLLIN,
                            [this](std::uint32_t) { read_output(stderr_, stderr_watch_, errors_); }));
  stderr_watch_ = err;
  timer_ = loop_.at(Clock::now() + timeout_, [this] {
    timer_ = 0;
    finish({fmt::format("no result within {}", service::describe(timeout_))});
  });
  return {};
}

CheckRun::~CheckRun() {
  for (Token* token : {&process_watch_, &stdout_watch_, &stderr_watch_, &timer_}) loop_.forget(*token);
  if (!process_) return;
  ::syscall(SYS_pidfd_send_signal, process_.get(), SIGKILL, nullptr, 0);
  // Its death may take a moment, and nothing here waits: the loop reaps it.
  struct Remains {
    UniqueFd process;
    Token watch = 0;
  };
  auto remains = std::make_shared<Remains>(Remains{std::move(process_), 0});
  const auto watched = loop_.watch(remains->process.get(), EPOLLIN, [&loop = loop_, remains](std::uint32_t) {
    siginfo_t info{};
    (void)::waitid(P_PIDFD, static_cast<id_t>(remains->process.get()), &info, WEXITED | WNOHANG);
    loop.forget(remains->watch);
  });
  if (watched) remains->watch = *watched;
}

void CheckRun::read_output(UniqueFd& pipe, Token& watch, std::string& into) {
  std::array<char, 16384> bytes{};
  ssize_t got = 0;
  while ((got = ::read(pipe.get(), bytes.data(), bytes.size())) > 0) {
    into.append(bytes.data(), static_cast<std::size_t>(got));
    if (into.size() > max_output) {
      finish({fmt::format("wrote more than {} KiB", max_output / 1024)});
      return;
    }
  }
  if (got == 0) loop_.forget(watch);
}

void CheckRun::ended() {
  siginfo_t info{};
  if (::waitid(P_PIDFD, static_cast<id_t>(process_.get()), &info, WEXITED | WNOHANG) != 0) {
    process_.reset();
    finish({lost});
    return;
  }
  if (info.si_pid == 0) return;
  loop_.forget(process_watch_);
  process_.reset();
  for (auto [pipe, watch, text] :
       {std::tuple(&stdout_, &stdout_watch_, &output_), {&stderr_, &stderr_watch_, &errors_}}) {
    std::array<char, 16384> bytes{};
    ssize_t got = 0;
    while (text->size() <= max_output && (got = ::read(pipe->get(), bytes.data(), bytes.size())) > 0)
      text->append(bytes.data(), static_cast<std::size_t>(got));
    loop_.forget(*watch);
  }
  const bool asked = info.si_code != CLD_EXITED ||
                     (info.si_status != exit_not_executable && info.si_status != exit_not_found);
  finish({judge(info.si_code, info.si_status), asked});
}

std::string CheckRun::judge(int code, int status) const {
  const std::string said = last_line(!errors_.empty() ? errors_ : output_);
  const std::string because = said.empty() ? "" : ": " + said;
  if (code != CLD_EXITED) return service::describe_exit(status) + because;
  if (status == exit_not_executable || status == exit_not_found)
    return fmt::format("it cannot be run (exit status {}){}", status, because);
  if (status != 0) return fmt::format("exited with status {}{}", status, because);
  if (output_.size() > max_output) return fmt::format("wrote more than {} KiB", max_output / 1024);
  if (!expect_.empty() && output_.find(expect_) == std::string::npos)
    return fmt::format("its output lacks {}{}", quote(expect_), because);
  return {};
}

void CheckRun::finish(Outcome outcome) {
  for (Token* token : {&process_watch_, &stdout_watch_, &stderr_watch_, &timer_}) loop_.forget(*token);
  const OnDone done = std::move(on_done_);
  done(std::move(outcome));  // may destroy *this
}

}  // namespace jail::loop
