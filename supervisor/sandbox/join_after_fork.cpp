#include "supervisor/sandbox/join_after_fork.h"

#include <sys/ioctl.h>

#include "supervisor/sandbox/steps.h"

namespace jail::sandbox {
namespace {

/// Behind the standard ones; none of them outlives exec.
enum JoinFd : int { status_slot = 3, parent_slot = 4, slot_count = 5 };

/// The namespaces first: only there does the root lead to the jail's mounts. Its descriptor, not the
/// namespace's own idea of a root: where the host itself lives in a chroot, that is another.
void enter_jail(const Steps& steps, const JoinPlan& join) noexcept {
  steps.must("join the jail's namespaces", raw(SYS_setns, join.process_fd, join.namespaces));
  steps.must("enter the jail's root", raw(SYS_fchdir, join.root_fd));
  steps.must("enter the jail's root", raw(SYS_chroot, "."));
  steps.must("enter the jail's root", raw(SYS_chdir, "/"));
}

void arrange_descriptors(Steps& steps, JoinPlan& join) noexcept {
  const int wanted[slot_count] = {join.standard[0], join.standard[1], join.standard[2], join.status_fd,
                                  join.plan.parent_fd};
  keep_only(steps, wanted, slot_count, status_slot, status_slot);
  join.plan.parent_fd = parent_slot;
}

/// Of the new session. Refused by descriptors that are none, or that are another's.
void take_terminal(const Steps& steps, const JoinPlan& join) noexcept {
  if (!join.terminal) return;
  for (int fd = 0; fd < 3; ++fd)
    if (raw(SYS_ioctl, fd, TIOCSCTTY, 0) == 0) return;
  steps.fail("take the terminal", ENOTTY);
}

}  // namespace

void run_joined(const JoinPlan& given) noexcept {
  JoinPlan join = given;
  const Plan& plan = join.plan;
  Steps steps(join.status_fd);

  die_with_parent(steps, plan);
  hide_memory(steps);
  new_session(steps);
  reset_signals(steps);
  enter_jail(steps, join);
  join_new_keyring(steps);

  arrange_descriptors(steps, join);
  take_terminal(steps, join);
  set_limits(steps, plan);
  set_umask(steps, plan.umask);
  enter_working_directory(steps, plan);
  restrict_reach(steps, plan);
  become(steps, plan.daemon);
  die_with_parent(steps, plan);  // again: a change of identity has cleared it
  forbid_new_privileges(steps);
  deny_write_execute(steps, plan);
  filter_calls(steps, plan);
  steps.must(join.exec_step, raw(SYS_execve, join.program, join.argv, join.envp));
  steps.fail(join.exec_step, EIO);  // not reached
}

}  // namespace jail::sandbox
