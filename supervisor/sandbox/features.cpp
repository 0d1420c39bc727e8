#include "supervisor/sandbox/features.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <sstream>

#include "supervisor/base/fd.h"
#include "supervisor/base/quote.h"
#include "supervisor/sandbox/raw.h"

namespace jail::sandbox {
namespace {

constexpr int pr_get_mdwe = 66;

/// A small file of /proc or /sys; empty when it cannot be read.
std::string small_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  std::string text(64 * 1024, '\0');
  const ssize_t length = fd ? ::read(fd.get(), text.data(), text.size()) : -1;
  text.resize(length > 0 ? static_cast<std::size_t>(length) : 0);
  return text;
}

std::uint64_t effective_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (raw(SYS_capget, &header, data) < 0) return 0;
  return data[0].effective | std::uint64_t{data[1].effective} << 32;
}

bool holds(std::uint64_t mask, std::initializer_list<int> capabilities) {
  return std::all_of(capabilities.begin(), capabilities.end(),
                     [mask](int capability) { return (mask >> capability & 1) != 0; });
}

/// A child that comes into all the namespaces of a jail, and leaves.
bool can_make_namespaces() {
  clone_args args{};
  args.flags = CLONE_CLEAR_SIGHAND | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET |
               CLONE_NEWCGROUP;
  args.exit_signal = SIGCHLD;
  const long pid = raw(SYS_clone3, &args, sizeof args);
  if (pid == 0)
    for (;;) raw(SYS_exit_group, 0);
  if (pid < 0) return false;
  int status = 0;
  long reaped;
  do reaped = raw(SYS_wait4, pid, &status, 0, nullptr);
  while (reaped == -EINTR);
  return reaped == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool has_mount_api() {
  const long tree = raw(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLOEXEC);
  if (tree >= 0) ::close(static_cast<int>(tree));
  mount_attr attributes{};
  return tree >= 0 &&
         raw(SYS_mount_setattr, -1, "", AT_EMPTY_PATH, &attributes, sizeof attributes) != -ENOSYS &&
         raw(SYS_fsopen, nullptr, 0) != -ENOSYS && raw(SYS_move_mount, -1, "", -1, "", 0) != -ENOSYS;
}

bool has_seccomp() {
  for (const unsigned action : {SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_LOG})
    if (raw(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) != 0) return false;
  // A known flag gets as far as the missing program.
  return raw(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG, nullptr) == -EFAULT;
}

/// Whether our root can be pivoted away from: not the first root file system that an initramfs is unpacked
/// into.
bool can_pivot() {
  std::istringstream lines(small_file("/proc/self/mountinfo"));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string id, parent, device, root, point;
    fields >> id >> parent >> device >> root >> point;
    if (point == "/" && line.find(" - rootfs ") != std::string::npos) return false;
  }
  return true;
}

std::string find_cgroup2() {
  for (const char* path : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
    struct statfs where {};
    if (::statfs(path, &where) == 0 && where.f_type == CGROUP2_SUPER_MAGIC) return path;
  }
  return {};
}

std::vector<std::string> words(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> found;
  for (std::string word; stream >> word;) found.push_back(word);
  return found;
}

bool has_pidfd_info() {
  struct {
    std::uint64_t fields[8];
  } info{};
  const long pidfd = raw(SYS_pidfd_open, ::getpid(), 0);
  if (pidfd < 0) return false;
  const UniqueFd owned(static_cast<int>(pidfd));
  return ::ioctl(owned.get(), _IOWR(0xFF, 11, info), &info) == 0;
}

bool can_read_audit() {
  const UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_AUDIT));
  const int group = AUDIT_NLGRP_READLOG;
  return fd && ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) == 0;
}

}  // namespace

bool Features::has_controller(const std::string& name) const {
  return std::find(controllers.begin(), controllers.end(), name) != controllers.end();
}

Features probe_extras() {
  Features found;
  constexpr unsigned ask_version = 1;  // LANDLOCK_CREATE_RULESET_VERSION
  const long abi = raw(SYS_landlock_create_ruleset, nullptr, 0, ask_version);
  found.landlock_abi = abi > 0 ? static_cast<int>(abi) : 0;
  found.mdwe = ::prctl(pr_get_mdwe, 0, 0, 0, 0) >= 0;
  found.cgroup2 = find_cgroup2();
  if (!found.cgroup2.empty()) found.controllers = words(small_file(found.cgroup2 + "/cgroup.controllers"));
  return found;
}

Features probe_features() {
  Features found = probe_extras();
  const std::uint64_t held = effective_capabilities();
  found.root =
      holds(held, {CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID, CAP_SETPCAP, CAP_SYS_CHROOT, CAP_MKNOD, CAP_KILL});
  found.namespaces = can_make_namespaces();
  found.mount_api = has_mount_api();
  found.safe_paths = raw(SYS_openat2, -1, "", nullptr, 0) != -ENOSYS;
  found.close_range = raw(SYS_close_range, ~0U, ~0U, 0) == 0;
  found.seccomp = has_seccomp();
  found.pivot_root = can_pivot();
  found.pidfd_info = has_pidfd_info();
  found.sys_resource = holds(held, {CAP_SYS_RESOURCE});
  found.audit_log = can_read_audit();
  constexpr int session_keyring = -3;
  found.keyrings = raw(SYS_keyctl, KEYCTL_GET_KEYRING_ID, session_keyring, 0) != -ENOSYS;
  found.apparmor = small_file("/sys/module/apparmor/parameters/enabled").starts_with('Y');
  found.selinux = !small_file("/sys/fs/selinux/enforce").empty();
  return found;
}

std::vector<FeatureLine> describe(const Features& f) {
  const std::string abi = f.landlock_abi == 0 ? "" : fmt::format("ABI {}", f.landlock_abi);
  const std::string controllers = fmt::format("{}", fmt::join(f.controllers, " "));
  const bool cgroup = !f.cgroup2.empty();
  // name, present, floor, requirable, detail, meaning
  return {
      {"root", f.root, true, false, "", "the capabilities that making a jail takes"},
      {"namespaces", f.namespaces, true, false, "",
       "mount, pid, ipc, uts, net and cgroup namespaces of its own"},
      {"mount-api", f.mount_api, true, false, "",
       "mounts by descriptor, read-only before they are seen (5.12)"},
      {"safe-paths", f.safe_paths, true, false, "", "openat2: no path leads out of the tree (5.6)"},
      {"pivot-root", f.pivot_root, true, false, "", "the root can be left behind: it is not an initramfs"},
      {"close-range", f.close_range, true, false, "", "no descriptor leaks into a jail (5.9)"},
      {"seccomp", f.seccomp, true, false, "", "calls outside the policy are refused and logged (4.14)"},
      {"mdwe", f.mdwe, false, true, "", "no memory is both writable and executable (6.3)"},
      {"landlock-net", f.landlock_abi >= landlock_net_abi, false, true, abi,
       "TCP ports that [sandbox] ports does not name are refused (6.7); UDP is not"},
      {"landlock-scope", f.landlock_abi >= landlock_scope_abi, false, true, abi,
       "abstract sockets of the host are out of reach (6.12)"},
      {"cgroup", cgroup, false, true, f.cgroup2, "each service in a control group of its own (v2)"},
      {"cgroup-memory", f.has_controller("memory"), false, true, controllers, "[limits] memory"},
      {"cgroup-pids", f.has_controller("pids"), false, true, controllers, "[limits] processes"},
      {"sys-resource", f.sys_resource, false, false, "", "hard limits can be raised, the oom score lowered"},
      {"audit-log", f.audit_log, false, false, "", "refused calls are told by name"},
      {"pidfd-info", f.pidfd_info, false, false, "", "exit statuses of what another process reaped (6.13)"},
      {"keyrings", f.keyrings, false, false, "", "kernel keys exist; each jail gets a session of its own"},
      {"apparmor", f.apparmor, false, false, "", "the host's profiles may confine a daemon further"},
      {"selinux", f.selinux, false, false, "", "the host's policy may confine a daemon further"},
  };
}

namespace {

/// What `spec` makes use of, among the features that may be missing.
bool uses(const LaunchSpec& spec, std::string_view feature) {
  if (feature == "landlock-net") return spec.restrict_ports;
  if (feature == "mdwe") return spec.memory_deny_write_execute;
  if (feature == "cgroup-memory") return spec.limits.memory != 0;
  if (feature == "cgroup-pids") return spec.limits.processes != 0;
  return true;
}

}  // namespace

Result<std::vector<std::string>> missing_features(const LaunchSpec& spec, const Features& features) {
  const std::vector<FeatureLine> lines = describe(features);
  for (const std::string& wanted : spec.require) {
    const auto line = std::find_if(lines.begin(), lines.end(), [&wanted](const FeatureLine& candidate) {
      return candidate.requirable && wanted == candidate.name;
    });
    if (line == lines.end())
      return with_hint(fail(Exit::config, "{}: [sandbox] require: {} is nothing that jail can enforce",
                            spec.name, quote(wanted)),
                       "`jail doctor` lists the names");
    if (!line->present)
      return with_hint(
          fail(Exit::host, "{}: [sandbox] require: this host cannot enforce {} ({})", spec.name, wanted,
               line->meaning),
          "run it on a newer kernel, or take the name out of `require`: `jail doctor` shows what there is");
    if (!uses(spec, wanted))
      return fail(Exit::config, "{}: [sandbox] require: {} is required, but the manifest turns it off",
                  spec.name, wanted);
  }
  std::vector<std::string> missing;
  for (const FeatureLine& line : lines)
    if (line.requirable && !line.present && uses(spec, line.name))
      missing.push_back(fmt::format("{}: not on this host: {}", line.name, line.meaning));
  return missing;
}

}  // namespace jail::sandbox
