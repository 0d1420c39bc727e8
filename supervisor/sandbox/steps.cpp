#include "supervisor/sandbox/steps.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/keyctl.h>
#include <linux/openat2.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>

namespace jail::sandbox {
namespace {

// Not in the kernel headers of Debian 12.
constexpr int pr_set_mdwe = 65;
constexpr unsigned long mdwe_refuse_exec_gain = 1;
constexpr int landlock_rule_port = 2;
struct LandlockRuleset {
  std::uint64_t handled_access_fs, handled_access_net, scoped;
};

using CapabilityData = __user_cap_data_struct[2];

long set_capabilities(std::uint64_t permitted, std::uint64_t inheritable) noexcept {
  const __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  CapabilityData data;
  for (unsigned i = 0; i < 2; ++i) {
    data[i].permitted = data[i].effective = static_cast<std::uint32_t>(permitted >> (32 * i));
    data[i].inheritable = static_cast<std::uint32_t>(inheritable >> (32 * i));
  }
  return raw(SYS_capset, &header, data);
}

bool has(std::uint64_t mask, unsigned capability) noexcept {
  return (mask >> capability & 1) != 0;
}

/// A user's programs get what they have from the ambient set alone; root's keep the rules that root's
/// programs count on (its children are root, and leaving uid 0 drops all). Either way the rules are locked.
/// Keeping capabilities stays allowed: named asks for it and gains nothing.
unsigned long locked_securebits(const Identity& who) noexcept {
  constexpr unsigned long locks = SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP_LOCKED;
  return who.uid == 0 ? locks : locks | SECBIT_NOROOT | SECBIT_NO_SETUID_FIXUP;
}

void verify_identity(const Steps& steps, const Identity& who, std::uint64_t inheritable) noexcept {
  uid_t uid[3] = {};
  gid_t gid[3] = {};
  gid_t groups[max_groups] = {};
  steps.must("verify uid", raw(SYS_getresuid, &uid[0], &uid[1], &uid[2]));
  steps.must("verify gid", raw(SYS_getresgid, &gid[0], &gid[1], &gid[2]));
  for (int i = 0; i < 3; ++i) {
    steps.verify("verify uid", uid[i] == who.uid);
    steps.verify("verify gid", gid[i] == who.gid);
  }
  const long count = steps.must("verify groups", raw(SYS_getgroups, max_groups, groups));
  steps.verify("verify groups", static_cast<std::size_t>(count) == who.group_count);
  for (std::size_t i = 0; i < who.group_count; ++i) steps.verify("verify groups", groups[i] == who.groups[i]);

  const __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  CapabilityData data{};
  steps.must("verify capabilities", raw(SYS_capget, &header, data));
  for (unsigned i = 0; i < 2; ++i) {
    const auto wanted = static_cast<std::uint32_t>(who.capabilities >> (32 * i));
    steps.verify("verify capabilities", data[i].permitted == wanted && data[i].effective == wanted);
    steps.verify("verify capabilities",
                 data[i].inheritable == static_cast<std::uint32_t>(inheritable >> (32 * i)));
  }
  for (unsigned cap = 0; cap <= who.last_capability; ++cap) {
    const long bound = steps.must("verify bounding set", raw(SYS_prctl, PR_CAPBSET_READ, cap, 0, 0, 0));
    steps.verify("verify bounding set", (bound == 1) == has(who.capabilities, cap));
    const long ambient =
        steps.must("verify ambient set", raw(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0));
    steps.verify("verify ambient set", (ambient == 1) == has(inheritable, cap));
  }
  const long bits = steps.must("verify securebits", raw(SYS_prctl, PR_GET_SECUREBITS, 0, 0, 0, 0));
  steps.verify("verify securebits", static_cast<unsigned long>(bits) == locked_securebits(who));
}

}  // namespace

void close_fd(long fd) noexcept {
  raw(SYS_close, fd);
}

long open_path(long dirfd, const char* path, std::uint64_t flags, std::uint64_t resolve) noexcept {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC | flags;
  how.resolve = resolve;
  return raw(SYS_openat2, dirfd, path, &how, sizeof how);
}

void die_with_parent(const Steps& steps, const Plan& plan) noexcept {
  steps.must("guard against orphanhood", raw(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
  pollfd parent{plan.parent_fd, POLLIN, 0};
  const timespec now{};
  if (steps.must("poll the parent", raw(SYS_ppoll, &parent, 1, &now, nullptr, 0)) != 0)
    steps.fail("poll the parent", ESRCH);
}

void hide_memory(const Steps& steps) noexcept {
  steps.must("set undumpable", raw(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0));
}

void reset_signals(const Steps& steps) noexcept {
  constexpr std::size_t set_size = 8;  // the kernel's sigset_t
  const unsigned long by_default[4] = {};
  for (int number = 1; number <= 64; ++number)
    if (number != SIGKILL && number != SIGSTOP)
      steps.must("reset signals", raw(SYS_rt_sigaction, number, by_default, nullptr, set_size));
  const std::uint64_t none = 0;
  steps.must("unblock signals", raw(SYS_rt_sigprocmask, SIG_SETMASK, &none, nullptr, set_size));
}

void new_session(const Steps& steps) noexcept {
  steps.must("setsid", raw(SYS_setsid));
}

void set_umask(const Steps& steps, unsigned mask) noexcept {
  steps.must("umask", raw(SYS_umask, mask));
}

void join_new_keyring(const Steps& steps) noexcept {
  const long result = raw(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr);
  if (result != -ENOSYS) steps.must("keyring", result);  // a kernel without keys has none to share
}

void keep_only(Steps& steps, const int* wanted, int count, int first_private, int channel) noexcept {
  const char* step = "arrange descriptors";
  int away[max_sockets + 8];
  for (int i = 0; i < count; ++i)
    away[i] = wanted[i] < 0
                  ? -1
                  : static_cast<int>(steps.must(step, raw(SYS_fcntl, wanted[i], F_DUPFD_CLOEXEC, count)));
  steps.move_channel(away[channel]);
  for (int i = 0; i < count; ++i) {
    if (away[i] < 0)
      close_fd(i);
    else
      steps.must(step, raw(SYS_dup3, away[i], i, i >= first_private ? O_CLOEXEC : 0));
  }
  steps.move_channel(channel);
  steps.must("close_range", raw(SYS_close_range, count, ~0U, 0));
}

void become(const Steps& steps, const Identity& who) noexcept {
  constexpr std::uint64_t setpcap = std::uint64_t{1} << CAP_SETPCAP;
  const std::uint64_t inheritable = who.uid == 0 ? 0 : who.capabilities;
  for (unsigned cap = 0; cap <= who.last_capability; ++cap)
    if (!has(who.capabilities, cap))
      steps.must("drop bounding set", raw(SYS_prctl, PR_CAPBSET_DROP, cap, 0, 0, 0));
  steps.must("keep capabilities", raw(SYS_prctl, PR_SET_SECUREBITS, SECBIT_KEEP_CAPS, 0, 0, 0));
  steps.must("setgroups", raw(SYS_setgroups, who.group_count, who.groups));
  steps.must("setresgid", raw(SYS_setresgid, who.gid, who.gid, who.gid));
  steps.must("setresuid", raw(SYS_setresuid, who.uid, who.uid, who.uid));
  steps.must("capset", set_capabilities(who.capabilities | setpcap, inheritable));
  steps.must("clear ambient set", raw(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
  for (unsigned cap = 0; cap <= who.last_capability; ++cap)
    if (has(inheritable, cap))
      steps.must("raise ambient set", raw(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0));
  steps.must("lock securebits", raw(SYS_prctl, PR_SET_SECUREBITS, locked_securebits(who), 0, 0, 0));
  steps.must("capset", set_capabilities(who.capabilities, inheritable));
  verify_identity(steps, who, inheritable);
}

void forbid_new_privileges(const Steps& steps) noexcept {
  steps.must("no_new_privs", raw(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  steps.verify("verify no_new_privs", raw(SYS_prctl, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
}

void set_limits(const Steps& steps, const Plan& plan) noexcept {
  steps.must("setpriority", raw(SYS_setpriority, PRIO_PROCESS, 0, plan.nice));
  for (std::size_t i = 0; i < plan.rlimit_count; ++i) {
    const RlimitStep& limit = plan.rlimits[i];
    const std::uint64_t wanted[2] = {limit.soft, limit.hard};
    steps.must(limit.step, raw(SYS_prlimit64, 0, limit.resource, wanted, nullptr));
  }
}

void enter_working_directory(const Steps& steps, const Plan& plan) noexcept {
  const long fd = steps.must("chdir", open_path(AT_FDCWD, plan.cwd, O_DIRECTORY, RESOLVE_NO_MAGICLINKS));
  steps.must("chdir", raw(SYS_fchdir, fd));
  close_fd(fd);
}

void restrict_reach(const Steps& steps, const Plan& plan) noexcept {
  if (plan.landlock_scope == 0 && plan.landlock_net == 0) return;
  const LandlockRuleset rules{0, plan.landlock_net, plan.landlock_scope};
  const long fd =
      steps.must("landlock_create_ruleset", raw(SYS_landlock_create_ruleset, &rules, sizeof rules, 0));
  for (std::size_t i = 0; i < plan.port_count; ++i)
    steps.must("landlock_add_rule", raw(SYS_landlock_add_rule, fd, landlock_rule_port, &plan.ports[i], 0));
  steps.must("landlock_restrict_self", raw(SYS_landlock_restrict_self, fd, 0));
  close_fd(fd);
}

void deny_write_execute(const Steps& steps, const Plan& plan) noexcept {
  if (plan.mdwe) steps.must("mdwe", raw(SYS_prctl, pr_set_mdwe, mdwe_refuse_exec_gain, 0, 0, 0));
}

void filter_calls(const Steps& steps, const Plan& plan) noexcept {
  sock_fprog program{};
  program.len = plan.filter_length;
  program.filter = const_cast<sock_filter*>(plan.filter);
  steps.must("seccomp", raw(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG, &program));
}

}  // namespace jail::sandbox
