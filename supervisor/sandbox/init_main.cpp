// jail-init: pid 1 of a jail. Says that the daemon runs, reaps whatever is left to it, says how the daemon
// ended, and ends with it, which ends all else in the jail.
//
// It arrives as nobody, without capabilities, with no_new_privs and the descriptors of InitFd. The
// daemon-to-be waits at the gate until we are undumpable and confined, so nothing in the jail ever meets us
// unguarded. Nothing is allocated, and nothing read but one record of our own making. All that is called is
// in the filter below.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cstddef>
#include <cstring>

#include "supervisor/sandbox/raw.h"
#include "supervisor/sandbox/record.h"

namespace {

using namespace jail::sandbox;

#if defined(__x86_64__)
constexpr unsigned architecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr unsigned architecture = AUDIT_ARCH_AARCH64;
#endif

[[noreturn]] void leave(int status) {
  for (;;) raw(SYS_exit_group, status);
}

void tell(const Record& record) {
  raw(SYS_sendto, init_report_fd, &record, sizeof record, MSG_NOSIGNAL, nullptr, 0);
}

/// The daemon's pid in our namespace: we cloned it first.
constexpr long daemon_pid = 2;

long tell_running() {
  Record record;
  record.kind = Record::running;
  iovec bytes{&record, sizeof record};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int fd = init_daemon_fd;
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return raw(SYS_sendmsg, init_report_fd, &message, MSG_NOSIGNAL);
}

/// The few calls that remain: wait, tell, leave.
long confine() {
  constexpr unsigned number = offsetof(seccomp_data, nr);
  constexpr unsigned arch = offsetof(seccomp_data, arch);
#define JAIL_ALLOW(call) \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, arch),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, architecture, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, number),
      JAIL_ALLOW(wait4),
      JAIL_ALLOW(restart_syscall),
      JAIL_ALLOW(read),
      JAIL_ALLOW(write),
      JAIL_ALLOW(sendto),
      JAIL_ALLOW(sendmsg),
      JAIL_ALLOW(prctl),
      JAIL_ALLOW(close_range),
      JAIL_ALLOW(exit_group),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  const sock_fprog filter{sizeof program / sizeof program[0], program};
#undef JAIL_ALLOW
  return raw(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter);
}

/// The daemon-to-be still waits at the gate, and never gets its byte.
void must(const char* step, long result) {
  if (result >= 0) return;
  Record record;
  record.error = static_cast<std::int32_t>(-result);
  std::strncpy(record.step, step, sizeof record.step - 1);
  tell(record);
  leave(1);
}

[[noreturn]] void reap() {
  for (;;) {
    int status = 0;
    const long pid = raw(SYS_wait4, -1, &status, 0, nullptr);
    if (pid == -ECHILD) leave(0);  // cannot be before the daemon has ended
    if (pid != daemon_pid) continue;
    Record record;
    record.kind = Record::exited;
    record.status = status;
    tell(record);
    leave(0);
  }
}

}  // namespace

int main() {
  must("jail-init: set undumpable", raw(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0));
  must("jail-init: seccomp", confine());
  const long opened = raw(SYS_write, init_gate_fd, "", 1);
  if (opened != -EPIPE)
    must("jail-init: open the gate", opened);  // nobody waits: a step has failed, read below
  Record failure;
  const long length = raw(SYS_read, init_status_fd, &failure, sizeof failure);
  if (length != 0) {  // the daemon-to-be says which step failed; it is already on its way out
    if (length == sizeof failure) tell(failure);
    leave(1);
  }
  // Set-up is complete: the daemon serves on without jaild, from before it is told that it serves. A daemon
  // that nobody can be told of any more would be nobody's.
  raw(SYS_prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0);
  if (tell_running() < 0) leave(1);
  raw(SYS_close_range, init_status_fd, ~0U, 0);  // the gate, too
  reap();
}
