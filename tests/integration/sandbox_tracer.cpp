#include "sandbox_tracer.h"

#include <elf.h>
#include <fcntl.h>
#include <seccomp.h>
#include <spawn.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <thread>

#include "catch.h"

namespace jail::test {
namespace {

std::string call_name(long number) {
  const std::unique_ptr<char, decltype(&std::free)> name(
      seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, static_cast<int>(number)), &std::free);
  return name ? name.get() : std::to_string(number);
}

/// At the entry of a call: it is not made, and its result is -EPERM.
void refuse(pid_t pid) {
#if defined(__x86_64__)
  user_regs_struct registers{};
  REQUIRE(::ptrace(PTRACE_GETREGS, pid, nullptr, &registers) == 0);
  registers.orig_rax = static_cast<unsigned long long>(-1);
  registers.rax = static_cast<unsigned long long>(-EPERM);
  REQUIRE(::ptrace(PTRACE_SETREGS, pid, nullptr, &registers) == 0);
#elif defined(__aarch64__)
  int number = -1;
  iovec call{&number, sizeof number};
  REQUIRE(::ptrace(PTRACE_SETREGSET, pid, 0x404 /* NT_ARM_SYSTEM_CALL */, &call) == 0);
  user_regs_struct registers{};
  iovec all{&registers, sizeof registers};
  REQUIRE(::ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &all) == 0);
  registers.regs[0] = static_cast<unsigned long long>(-EPERM);
  REQUIRE(::ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &all) == 0);
#endif
}

/// Follows the three tasks of a launch; the one with the fault from call to call.
class Tracer {
 public:
  Tracer(const Fault& fault, pid_t launcher) : fault_(fault), launcher_(launcher) {
    tasks_[launcher] = Task::launcher;
    constexpr unsigned long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                                      PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    REQUIRE(::ptrace(PTRACE_SEIZE, launcher, nullptr, options) == 0);
    REQUIRE(::ptrace(PTRACE_INTERRUPT, launcher, nullptr, nullptr) == 0);
  }

  /// Until the launcher has ended; by then nothing of the jail is left.
  Traced follow() {
    for (;;) {
      int status = 0;
      const pid_t pid = ::waitpid(-1, &status, __WALL);
      REQUIRE(pid > 0);
      if (WIFSTOPPED(status)) {
        stopped(pid, status);
      } else if (pid == launcher_) {
        result_.status = status;
        return result_;
      }
    }
  }

 private:
  void stopped(pid_t pid, int status) {
    const int signal = WSTOPSIG(status);
    const int event = status >> 16;
    if (tasks_.count(pid) == 0) {  // its parent has not yet told whose child it is
      held_.insert(pid);
      return;
    }
    if (signal == (SIGTRAP | 0x80)) {
      at_call(pid);
    } else if (event == PTRACE_EVENT_CLONE || event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK) {
      new_task(pid);
    } else if (event == PTRACE_EVENT_EXEC) {
      if (tasks_[pid] == Task::init) in_jail_init_ = true;
      if (tasks_[pid] == Task::daemon) done_ = done_ || fault_.task == Task::daemon;
    }
    go_on(pid, event == 0 && signal != (SIGTRAP | 0x80) ? signal : 0);
  }

  void new_task(pid_t parent) {
    unsigned long message = 0;
    REQUIRE(::ptrace(PTRACE_GETEVENTMSG, parent, nullptr, &message) == 0);
    const auto child = static_cast<pid_t>(message);
    const Task by = tasks_[parent];
    tasks_[child] = by == Task::launcher ? Task::init : by == Task::init ? Task::daemon : Task::other;
    if (held_.erase(child) == 1) go_on(child, 0);
  }

  void go_on(pid_t pid, int signal) {
    const bool watched = tasks_[pid] == fault_.task && !done_;
    ::ptrace(watched ? PTRACE_SYSCALL : PTRACE_CONT, pid, nullptr,
             static_cast<long>(signal));  // may have died
  }

  void at_call(pid_t pid) {
    __ptrace_syscall_info info{};
    if (::ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) < 0) return;
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY || !is_step(static_cast<long>(info.entry.nr))) return;
    result_.steps.push_back(call_name(static_cast<long>(info.entry.nr)));
    if (static_cast<int>(result_.steps.size()) != fault_.nth) return;
    result_.struck = done_ = true;
    if (fault_.kind == Fault::Kind::late)
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    else
      refuse(pid);
  }

  /// All calls but close (what it leaves open, close_range closes, which is one) and the way out; of
  /// jail-init, after the C library's own start, those up to the byte that lets the daemon run.
  bool is_step(long number) {
    if (number == SYS_close || number == SYS_exit_group) return false;
    if (fault_.task == Task::launcher)
      return number == SYS_socketpair || number == SYS_pidfd_open || number == SYS_clone3;
    if (!in_jail_init_ || fault_.task != Task::init) return true;
    done_ = done_ || number == SYS_write;
    return number == SYS_prctl || number == SYS_seccomp || number == SYS_write;
  }

  Fault fault_;
  pid_t launcher_;
  std::map<pid_t, Task> tasks_;
  std::set<pid_t> held_;
  bool in_jail_init_ = false;
  bool done_ = false;  ///< nothing more to see
  Traced result_;
};

}  // namespace

Traced run_traced(const House& house, const Fault& fault) {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  std::string words[] = {program("launcher"), house.top / "gen", program("jail-init")};
  char* argv[] = {words[0].data(), words[1].data(), words[2].data(), nullptr};
  posix_spawn_file_actions_t actions;
  REQUIRE(::posix_spawn_file_actions_init(&actions) == 0);
  ::posix_spawn_file_actions_adddup2(&actions, read_end.get(), 0);
  pid_t launcher = -1;
  const int error = ::posix_spawn(&launcher, argv[0], &actions, nullptr, argv, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  REQUIRE(error == 0);
  Tracer tracer(fault, launcher);
  write_end.reset();
  return tracer.follow();
}

}  // namespace jail::test
