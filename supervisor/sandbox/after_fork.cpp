#include "supervisor/sandbox/after_fork.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "supervisor/sandbox/raw.h"
#include "supervisor/sandbox/steps.h"

namespace jail::sandbox {
namespace {

constexpr int mnt_detach = 2;

// ---- the process itself
// -----------------------------------------------------------------------------------------

/// The daemon inherits it. Written through the host's /proc, for the jail may have none.
void set_oom_score(const Steps& steps, const Plan& plan) noexcept {
  const char* step = "oom_score_adj";
  const long fd = steps.must(
      step, raw(SYS_openat, AT_FDCWD, "/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  struct statfs where {};
  steps.must(step, raw(SYS_fstatfs, fd, &where));
  if (where.f_type != PROC_SUPER_MAGIC) steps.fail(step, EXDEV);
  steps.must(step, raw(SYS_write, fd, plan.oom_score, plan.oom_score_length));
  close_fd(fd);
}

/// Before anything else is made: sockets and /proc/net belong to the namespace that their maker is in.
void enter_network(const Steps& steps, const Plan& plan) noexcept {
  if (plan.network_fd < 0) return;
  steps.must("enter the network namespace", raw(SYS_setns, plan.network_fd, CLONE_NEWNET));
}

// ---- mounts
// -----------------------------------------------------------------------------------------------------

constexpr std::uint64_t below_root = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;

/// What is held while the mounts are made.
struct Mounts {
  long root = -1;
  long
      sources[max_mounts];  ///< detached clones of the bind sources; -1: left out; then each step's own mount
  bool is_directory[max_mounts];
};

long clone_mount(long fd) noexcept {
  return raw(SYS_open_tree, fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
}

long set_attributes(long mount, std::uint64_t set, std::uint64_t clear = 0) noexcept {
  mount_attr attributes{};
  attributes.attr_set = set;
  attributes.attr_clr = clear;
  return raw(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &attributes, sizeof attributes);
}

/// Clones the source of a bind as a detached mount with its attributes set. Its last component is not
/// followed.
long open_source(const Steps& steps, const MountStep& mount, bool& is_directory) noexcept {
  const long fd = open_path(AT_FDCWD, mount.source, O_NOFOLLOW, RESOLVE_NO_MAGICLINKS);
  if (mount.optional && (fd == -ENOENT || fd == -ENOTDIR)) return -1;
  steps.must(mount.step, fd);
  struct statx status {};
  steps.must(mount.step, raw(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_TYPE, &status));
  if (S_ISLNK(status.stx_mode)) steps.fail(mount.step, ELOOP);
  if (mount.socket && !S_ISSOCK(status.stx_mode)) steps.fail(mount.step, ENOTSOCK);
  is_directory = S_ISDIR(status.stx_mode);
  const long clone = steps.must(mount.step, clone_mount(fd));
  close_fd(fd);
  steps.must(mount.step, set_attributes(clone, mount.attributes));
  return clone;
}

/// While the host's mount namespace is still ours: only there can its mounts be cloned.
void open_sources(const Steps& steps, const Plan& plan, Mounts& mounts) noexcept {
  for (std::size_t i = 0; i < plan.mount_count; ++i) {
    mounts.sources[i] = -1;
    mounts.is_directory[i] = true;
    if (plan.mounts[i].kind == MountStep::Kind::bind)
      mounts.sources[i] = open_source(steps, plan.mounts[i], mounts.is_directory[i]);
  }
  mounts.root = steps.must("clone the tree", clone_mount(plan.tree_fd));
  steps.must("make the tree read-only",
             set_attributes(mounts.root, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
  steps.must("enter the tree", raw(SYS_fchdir, plan.tree_fd));
}

void enter_mount_namespace(const Steps& steps) noexcept {
  steps.must("unshare", raw(SYS_unshare, CLONE_NEWNS | CLONE_NEWCGROUP));
  mount_attr attributes{};
  attributes.propagation = MS_PRIVATE;
  steps.must("private propagation",
             raw(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &attributes, sizeof attributes));
}

/// On top of its own directory, which unshare moved into the new namespace as our working directory.
void attach_tree(const Steps& steps, const Mounts& mounts) noexcept {
  steps.must("mount the tree", raw(SYS_move_mount, mounts.root, "", AT_FDCWD, ".", MOVE_MOUNT_F_EMPTY_PATH));
  steps.must("enter the tree", raw(SYS_fchdir, mounts.root));
}

void attach(const Steps& steps, const char* step, long mount, long dirfd, const char* target) noexcept {
  const long where = steps.must(step, open_path(dirfd, target, 0, below_root));
  steps.must(step,
             raw(SYS_move_mount, mount, "", where, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
  close_fd(where);
}

void must_exist(const Steps& steps, const char* step, long result) noexcept {
  if (result != -EEXIST) steps.must(step, result);
}

void make_directories(const Steps& steps, const char* step, long dirfd, const char* const* paths) noexcept {
  for (; paths != nullptr && *paths != nullptr; ++paths)
    must_exist(steps, step, raw(SYS_mkdirat, dirfd, *paths, 0755));
}

void make_file(const Steps& steps, const char* step, long dirfd, const char* path) noexcept {
  must_exist(steps, step, raw(SYS_mknodat, dirfd, path, S_IFREG | 0444, 0));
}

long new_filesystem(const Steps& steps, const char* type, const MountStep& mount) noexcept {
  const long context = steps.must(mount.step, raw(SYS_fsopen, type, FSOPEN_CLOEXEC));
  for (const FsOption* option = mount.options; option != nullptr && option->key != nullptr; ++option)
    steps.must(mount.step, raw(SYS_fsconfig, context, FSCONFIG_SET_STRING, option->key, option->value, 0));
  steps.must(mount.step, raw(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0));
  const long fd = steps.must(mount.step, raw(SYS_fsmount, context, FSMOUNT_CLOEXEC, mount.attributes));
  close_fd(context);
  return fd;
}

/// The tree's own node as a mount that may be used as a device: chmod and chown inside cannot reach the
/// tree's inode.
long open_device(const Steps& steps, const DeviceStep& device, long root) noexcept {
  const long fd = steps.must(device.step, open_path(root, device.tree_path, 0, below_root | RESOLVE_NO_XDEV));
  struct statx status {};
  steps.must(device.step, raw(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_TYPE, &status));
  const bool expected =
      device.major == 0 || (status.stx_rdev_major == device.major && status.stx_rdev_minor == device.minor);
  if (!S_ISCHR(status.stx_mode) || !expected) steps.fail(device.step, ENXIO);
  const long clone = steps.must(device.step, clone_mount(fd));
  close_fd(fd);
  constexpr std::uint64_t set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
  steps.must(device.step, set_attributes(clone, set, MOUNT_ATTR_NODEV));
  return clone;
}

void make_links(const Steps& steps, long dev) noexcept {
  static constexpr const char* links[][2] = {{"/proc/self/fd", "fd"},
                                             {"/proc/self/fd/0", "stdin"},
                                             {"/proc/self/fd/1", "stdout"},
                                             {"/proc/self/fd/2", "stderr"}};
  for (const auto& link : links)
    steps.must("link /dev/stdin and the like", raw(SYS_symlinkat, link[0], dev, link[1]));
}

/// A small tmpfs over the tree's /dev, whose nodes are opened before it covers them.
long make_dev(const Steps& steps, const Plan& plan, const MountStep& mount, long root) noexcept {
  long devices[max_devices];
  for (std::size_t i = 0; i < plan.device_count; ++i) devices[i] = open_device(steps, plan.devices[i], root);
  const long dev = new_filesystem(steps, "tmpfs", mount);
  make_links(steps, dev);
  for (std::size_t i = 0; i < plan.device_count; ++i) {
    make_directories(steps, plan.devices[i].step, dev, plan.devices[i].make);
    make_file(steps, plan.devices[i].step, dev, plan.devices[i].path);
  }
  attach(steps, mount.step, dev, root, mount.target);
  for (std::size_t i = 0; i < plan.device_count; ++i) {
    attach(steps, plan.devices[i].step, devices[i], dev, plan.devices[i].path);
    close_fd(devices[i]);
  }
  return dev;
}

void make_target(const Steps& steps, const MountStep& mount, bool directory, long root) noexcept {
  if (!mount.make_target) return;
  make_directories(steps, mount.step, root, mount.make);
  if (directory)
    must_exist(steps, mount.step, raw(SYS_mkdirat, root, mount.target, 0755));
  else
    make_file(steps, mount.step, root, mount.target);
}

void make_mount(const Steps& steps, const Plan& plan, Mounts& mounts, std::size_t i) noexcept {
  const MountStep& mount = plan.mounts[i];
  long& fd = mounts.sources[i];
  if (mount.kind == MountStep::Kind::bind && fd < 0) return;  // an optional source that is not there
  make_target(steps, mount, mounts.is_directory[i], mounts.root);
  if (mount.kind == MountStep::Kind::dev) {
    fd = make_dev(steps, plan, mount, mounts.root);
    return;
  }
  if (mount.kind == MountStep::Kind::tmpfs) fd = new_filesystem(steps, "tmpfs", mount);
  if (mount.kind == MountStep::Kind::proc) fd = new_filesystem(steps, "proc", mount);
  attach(steps, mount.step, fd, mounts.root, mount.target);
}

void make_mounts(const Steps& steps, const Plan& plan, Mounts& mounts) noexcept {
  for (std::size_t i = 0; i < plan.mount_count; ++i) make_mount(steps, plan, mounts, i);
  for (std::size_t i = 0; i < plan.mount_count; ++i)
    if (plan.mounts[i].seal)
      steps.must(plan.mounts[i].step, set_attributes(mounts.sources[i], MOUNT_ATTR_RDONLY));
}

/// pivot_root(2) with both names ".": the old root lies on top of the new one for a moment, then is gone.
void enter_root(const Steps& steps) noexcept {
  const long result = raw(SYS_pivot_root, ".", ".");
  if (result == -EINVAL) steps.fail("pivot_root (impossible on an initramfs: switch_root first)", EINVAL);
  steps.must("pivot_root", result);
  steps.must("detach the old root", raw(SYS_umount2, ".", mnt_detach));
  steps.must("enter the root", raw(SYS_chdir, "/"));
}

// ---- names and keys
// ---------------------------------------------------------------------------------------------

void set_host_name(const Steps& steps, const Plan& plan) noexcept {
  steps.must("sethostname", raw(SYS_sethostname, plan.hostname, plan.hostname_length));
}

void bring_loopback_up(const Steps& steps, const Plan& plan) noexcept {
  if (!plan.loopback_up) return;
  const char* step = "bring up lo";
  const long fd = steps.must(step, raw(SYS_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  request.ifr_name[0] = 'l';
  request.ifr_name[1] = 'o';
  request.ifr_flags = IFF_UP;
  steps.must(step, raw(SYS_ioctl, fd, SIOCSIFFLAGS, &request));
  close_fd(fd);
}

// ---- the daemon
// -------------------------------------------------------------------------------------------------

/// The ends that only the daemon-to-be uses.
struct Start {
  const Plan* plan = nullptr;
  int status = -1;  ///< write end: its failed step; closed by a good exec
  int gate = -1;    ///< read end: a byte says that the init is in place
};

/// stdin, stdout, stderr, the passed sockets from 3; then the two pipes. Returns the new number of the gate.
int arrange_daemon_descriptors(Steps& steps, const Start& start) noexcept {
  const Plan& plan = *start.plan;
  int wanted[max_sockets + 8] = {plan.null_fd, plan.stdout_fd, plan.stderr_fd};
  int count = 3;
  for (std::size_t i = 0; i < plan.socket_count; ++i) wanted[count++] = plan.socket_fds[i];
  const int status = count++;
  const int gate = count++;
  wanted[status] = start.status;
  wanted[gate] = start.gate;
  keep_only(steps, wanted, count, status, status);
  return gate;
}

/// The pid that the daemon itself sees, into the environment that was laid out for it.
void write_listen_pid(char* digits) noexcept {
  if (digits == nullptr) return;
  char reversed[24];
  std::size_t length = 0;
  for (long pid = raw(SYS_getpid); pid > 0; pid /= 10) reversed[length++] = static_cast<char>('0' + pid % 10);
  while (length > 0) *digits++ = reversed[--length];
  *digits = '\0';
}

/// Nothing runs before the init is in place and confined: jail-init sends a byte. The end of the pipe alone
/// is that of an init which has been killed.
void wait_for_init(const Steps& steps, int gate) noexcept {
  char nothing = 0;
  const long result = steps.must("wait for the init", raw(SYS_read, gate, &nothing, 1));
  steps.verify("wait for the init", result == 1);
  close_fd(gate);
}

/// The daemon's order of steps. It shares the memory of the init until one of them has called exec.
int run_daemon(void* argument) noexcept {
  const Start start = *static_cast<const Start*>(argument);
  const Plan& plan = *start.plan;
  Steps steps(start.status);
  new_session(steps);
  const int gate = arrange_daemon_descriptors(steps, start);
  set_limits(steps, plan);
  set_umask(steps, plan.umask);
  enter_working_directory(steps, plan);
  restrict_reach(steps, plan);
  become(steps, plan.daemon);
  forbid_new_privileges(steps);
  deny_write_execute(steps, plan);
  write_listen_pid(plan.listen_pid);
  wait_for_init(steps, gate);
  filter_calls(steps, plan);
  steps.must(plan.exec_step, raw(SYS_execve, plan.argv[0], plan.argv, plan.envp));
  steps.fail(plan.exec_step, EIO);  // not reached
}

/// The ends that the init keeps.
struct Daemon {
  int pidfd = -1;
  int status = -1;  ///< read end
  int gate = -1;    ///< write end
};

Daemon start_daemon(const Steps& steps, const Plan& plan, Start& start) noexcept {
  int status[2];
  int gate[2];
  steps.must("pipe", raw(SYS_pipe2, status, O_CLOEXEC));
  steps.must("pipe", raw(SYS_pipe2, gate, O_CLOEXEC));
  start = {&plan, status[1], gate[0]};
  Daemon daemon{-1, status[0], gate[1]};
  char* stack_top = static_cast<char*>(plan.daemon_stack) + daemon_stack_size;
  // The C library's own clone is plain assembly, and sets errno only where there is no new task to share it.
  if (::clone(run_daemon, stack_top, CLONE_VM | CLONE_PIDFD | SIGCHLD, &start, &daemon.pidfd) < 0)
    steps.fail("clone the daemon", errno);
  return daemon;
}

/// The init's own end: it keeps the four descriptors of InitFd.
void exec_init(Steps& steps, const Plan& plan, const Daemon& daemon) noexcept {
  constexpr int program = 7;
  const int wanted[] = {-1, -1, -1, plan.report_fd, daemon.status, daemon.pidfd, daemon.gate, plan.init_fd};
  keep_only(steps, wanted, 8, program, init_report_fd);
  const char* const argv[] = {"jail-init", nullptr};
  const char* const envp[] = {nullptr};
  steps.must("exec jail-init", raw(SYS_execveat, program, "", argv, envp, AT_EMPTY_PATH));
}

}  // namespace

void run_init(const Plan& plan) noexcept {
  Steps steps(plan.report_fd);
  Mounts mounts;
  Start start;  // here, for the daemon reads it while we go on

  die_with_parent(steps, plan);
  hide_memory(steps);
  new_session(steps);
  reset_signals(steps);
  set_umask(steps, 022);
  set_oom_score(steps, plan);
  enter_network(steps, plan);

  open_sources(steps, plan, mounts);
  enter_mount_namespace(steps);
  attach_tree(steps, mounts);
  make_mounts(steps, plan, mounts);
  enter_root(steps);

  set_host_name(steps, plan);
  bring_loopback_up(steps, plan);
  join_new_keyring(steps);

  const Daemon daemon = start_daemon(steps, plan, start);
  become(steps, plan.init);
  die_with_parent(steps, plan);  // again: a change of identity has cleared it
  forbid_new_privileges(steps);
  exec_init(steps, plan, daemon);
  steps.fail("exec jail-init", EIO);  // not reached
}

}  // namespace jail::sandbox
