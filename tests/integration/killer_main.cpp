// killer N COMMAND...: runs a command and kills it, all threads at once, on its way into its N-th system
// call, counted over all of its threads; with 0 never. Its output is dropped. Prints "killed
// NAME-OF-CALL'S-NUMBER" or "ended STATUS CALLS". By ptrace: some thousand runs of a build take a minute,
// with strace an hour.
#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace {

[[noreturn]] void run(char** command) {
  const int sink = ::open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; ++fd) ::dup2(sink, fd);
  ::close(sink);
  ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  ::raise(SIGSTOP);
  ::execvp(command[0], command);
  ::_exit(127);
}

bool enters(pid_t thread, unsigned long long& number) {
  __ptrace_syscall_info info{};
  const long size = ::ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info);
  number = info.entry.nr;
  return size > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY;
}

/// Everything to its end; `main` is the thread whose status counts.
int reap(pid_t main) {
  int status = 0;
  int last = 0;
  while (true) {
    const pid_t pid = ::waitpid(-1, &status, __WALL);
    if (pid < 0 && errno == EINTR) continue;
    if (pid < 0) return last;
    if (pid == main) last = status;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 64;
  const unsigned long at = std::strtoul(argv[1], nullptr, 10);
  const pid_t main = ::fork();
  if (main < 0) return 71;
  if (main == 0) run(argv + 2);
  int status = 0;
  ::waitpid(main, &status, 0);
  constexpr long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                           PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
  if (::ptrace(PTRACE_SETOPTIONS, main, nullptr, options) != 0) return 71;
  ::ptrace(PTRACE_SYSCALL, main, nullptr, nullptr);
  unsigned long calls = 0;
  while (true) {
    const pid_t thread = ::waitpid(-1, &status, __WALL);
    if (thread < 0 && errno == EINTR) continue;
    if (thread < 0) return 70;
    if (!WIFSTOPPED(status)) {
      if (thread != main) continue;
      std::printf("ended %d %lu\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), calls);
      return 0;
    }
    long signal = 0;
    unsigned long long number = 0;
    if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
      if (enters(thread, number) && ++calls == at) {
        ::kill(main, SIGKILL);
        (void)reap(main);
        std::printf("killed %llu\n", number);
        return 0;
      }
    } else if (WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SIGSTOP) {
      signal = WSTOPSIG(status);
    }
    ::ptrace(PTRACE_SYSCALL, thread, nullptr, signal);
  }
}
