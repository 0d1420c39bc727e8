#include "supervisor/log/confine.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <iterator>

namespace jail::log {
namespace {

constexpr unsigned nobody = 65534;

// The whole of what the relay calls once it runs. Nothing that opens a path, makes a process or a socket.
constexpr std::array allowed = {
    __NR_epoll_create1, __NR_epoll_wait,   __NR_epoll_pwait,     __NR_epoll_ctl,
    __NR_recvmmsg,      __NR_recvmsg,      __NR_sendmmsg,        __NR_sendmsg,
    __NR_read,          __NR_pread64,      __NR_write,           __NR_fstat,
    __NR_newfstatat,    __NR_ftruncate,    __NR_munmap,          __NR_mremap,
    __NR_madvise,       __NR_brk,          __NR_close,           __NR_clock_gettime,
    __NR_exit_group,    __NR_rt_sigreturn, __NR_restart_syscall, __NR_getrandom,
    __NR_futex,
};

#if defined(__x86_64__)
constexpr std::uint32_t architecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t architecture = AUDIT_ARCH_AARCH64;
#else
#error "say which AUDIT_ARCH_ this machine is"
#endif

constexpr sock_filter load(std::size_t offset) {
  return {BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<std::uint32_t>(offset)};
}
constexpr sock_filter jump_equal(std::uint32_t value, std::uint8_t yes, std::uint8_t no) {
  return {BPF_JMP | BPF_JEQ | BPF_K, yes, no, value};
}
constexpr sock_filter answer(std::uint32_t value) {
  return {BPF_RET | BPF_K, 0, 0, value};
}

// architecture; mmap without PROT_EXEC (protections lie in the low half of argument 2); the table; the rest
// kills.
constexpr auto make_filter() {
  std::array<sock_filter, allowed.size() + 10> program{};
  std::size_t at = 0;
  const std::size_t kill = program.size() - 2, allow = program.size() - 1;
  auto to = [&](std::size_t target) { return static_cast<std::uint8_t>(target - at - 1); };
  program[at] = load(offsetof(seccomp_data, arch));
  ++at;
  program[at] = jump_equal(architecture, 0, to(kill));
  ++at;
  program[at] = load(offsetof(seccomp_data, nr));
  ++at;
  for (const int number : allowed) {
    program[at] = jump_equal(static_cast<std::uint32_t>(number), to(allow), 0);
    ++at;
  }
  program[at] = jump_equal(__NR_mmap, 0, to(kill));
  ++at;
  program[at] = load(offsetof(seccomp_data, args) + 2 * sizeof(std::uint64_t));
  ++at;
  program[at] = {BPF_JMP | BPF_JSET | BPF_K, 0, to(allow), PROT_EXEC};
  ++at;
  program[at] = answer(SECCOMP_RET_KILL_PROCESS);
  ++at;
  program[at] = answer(SECCOMP_RET_KILL_PROCESS);
  ++at;
  program[at] = answer(SECCOMP_RET_KILL_PROCESS);  // `kill`
  ++at;
  program[at] = answer(SECCOMP_RET_ALLOW);
  return program;
}
constexpr auto filter = make_filter();
static_assert(filter[filter.size() - 1].k == SECCOMP_RET_ALLOW &&
              filter[filter.size() - 2].k == SECCOMP_RET_KILL_PROCESS);

Result<void> failed(const char* step) {
  return fail_errno(Exit::host, errno, "confine the log relay: {}", step);
}

// An empty, unwritable tmpfs as the root, the old one detached.
Result<void> leave_the_tree() {
  if (::unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET) != 0) return failed("unshare");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return failed("make mounts private");
  const int context = static_cast<int>(::syscall(SYS_fsopen, "tmpfs", 1U /* FSOPEN_CLOEXEC */));
  if (context < 0) return failed("fsopen tmpfs");
  (void)::syscall(SYS_fsconfig, context, 1U /* SET_STRING */, "mode", "0555", 0);
  (void)::syscall(SYS_fsconfig, context, 1U, "nr_inodes", "2", 0);
  if (::syscall(SYS_fsconfig, context, 6U /* CMD_CREATE */, nullptr, nullptr, 0) != 0)
    return failed("make a tmpfs");
  const int mount = static_cast<int>(::syscall(SYS_fsmount, context, 1U /* FSMOUNT_CLOEXEC */,
                                               MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC));
  if (mount < 0) return failed("mount a tmpfs");
  ::close(context);
  if (::syscall(SYS_move_mount, mount, "", AT_FDCWD, "/", 4U /* F_EMPTY_PATH */) != 0)
    return failed("attach a tmpfs");
  if (::fchdir(mount) != 0) return failed("chdir");
  ::close(mount);
  if (::syscall(SYS_pivot_root, ".", ".") == 0) {
    if (::umount2(".", MNT_DETACH) != 0) return failed("detach the old root");
  } else if (errno != EINVAL) {  // EINVAL: on an initramfs
    return failed("pivot_root");
  }
  if (::chroot(".") != 0) return failed("chroot");
  if (::chdir("/") != 0) return failed("chdir");
  return {};
}

Result<void> drop_privileges() {
  if (::setgroups(0, nullptr) != 0) return failed("setgroups");
  for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability)
    if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) return failed("drop the bounding set");
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0)
    return failed("clear ambient capabilities");
  if (::setresgid(nobody, nobody, nobody) != 0) return failed("setresgid");
  if (::setresuid(nobody, nobody, nobody) != 0) return failed("setresuid");
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> none{};
  if (::syscall(SYS_capset, &header, none.data()) != 0) return failed("drop capabilities");
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return failed("no_new_privs");
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return failed("forbid core dumps");
  return {};
}

Result<void> verify() {
  uid_t uid[3];
  gid_t gid[3];
  if (::getresuid(&uid[0], &uid[1], &uid[2]) != 0 || ::getresgid(&gid[0], &gid[1], &gid[2]) != 0)
    return failed("getresuid");
  for (std::size_t i = 0; i < 3; ++i)
    if (uid[i] != nobody || gid[i] != nobody)
      return fail(Exit::internal, "confine the log relay: the ids are not nobody's");
  if (::getgroups(0, nullptr) != 0) return fail(Exit::internal, "confine the log relay: groups are left");
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> held{};
  if (::syscall(SYS_capget, &header, held.data()) != 0) return failed("capget");
  for (const auto& set : held)
    if ((set.effective | set.permitted | set.inheritable) != 0)
      return fail(Exit::internal, "confine the log relay: capabilities are left");
  if (::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
    return fail(Exit::internal, "confine the log relay: no_new_privs is not set");
  struct stat root {};
  if (::access("/proc", F_OK) == 0 || ::stat("/..", &root) != 0 || root.st_nlink != 2)
    return fail(Exit::internal, "confine the log relay: the root is not empty");
  return {};
}

}  // namespace

Result<void> confine() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {  // four descriptors a jail
    files.rlim_cur = files.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &files);
  }
  JAIL_CHECK(leave_the_tree());
  JAIL_CHECK(drop_privileges());
  JAIL_CHECK(verify());
#if !defined(__SANITIZE_ADDRESS__)  // AddressSanitizer reads /proc and maps at will
  const sock_fprog program{static_cast<unsigned short>(filter.size()),
                           const_cast<sock_filter*>(filter.data())};
  if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) return failed("seccomp");
#endif
  return {};
}

}  // namespace jail::log
