// What the running kernel, and we on it, can enforce. Asked of the kernel itself, never of its version.
#pragma once

#include <string>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/spec/launch_spec.h"

namespace jail::sandbox {

/// The versions of Landlock that brought them.
inline constexpr int landlock_net_abi = 4;    ///< ports of TCP
inline constexpr int landlock_scope_abi = 6;  ///< abstract sockets and signals

struct Features {
  // The floor: without these nothing runs.
  bool root = false;         ///< CAP_SYS_ADMIN, SETUID, SETGID, SETPCAP, SYS_CHROOT, MKNOD are effective
  bool namespaces = false;   ///< clone3 with mount, pid, ipc, uts, network and cgroup namespaces
  bool mount_api = false;    ///< open_tree, mount_setattr (5.12)
  bool safe_paths = false;   ///< openat2 (5.6)
  bool close_range = false;  ///< 5.9
  bool seccomp = false;      ///< filters, with ERRNO, KILL_PROCESS, LOG and the log flag
  bool pivot_root = false;   ///< the root is not an initramfs

  // What comes on top where it is there.
  int landlock_abi = 0;                  ///< 0: none; 4 ports, 6 scopes
  bool mdwe = false;                     ///< PR_SET_MDWE (6.3)
  std::string cgroup2;                   ///< where cgroup v2 is mounted; empty: nowhere
  std::vector<std::string> controllers;  ///< of the v2 tree
  bool pidfd_info = false;               ///< PIDFD_GET_INFO (6.13)
  bool sys_resource = false;             ///< may raise hard limits and lower the oom score
  bool audit_log = false;                ///< refused calls can be read from the audit subsystem (READLOG)
  bool keyrings = false;
  bool apparmor = false;
  bool selinux = false;

  /// All of the floor.
  [[nodiscard]] bool floor() const {
    return root && namespaces && mount_api && safe_paths && close_range && seccomp && pivot_root;
  }
  [[nodiscard]] bool has_controller(const std::string& name) const;
};

/// Asks the kernel: some twenty calls and one short-lived child. Never fails; what cannot be asked counts as
/// missing.
[[nodiscard]] Features probe_features();

/// The cheap part of it, for every launch preparation: Landlock, MDWE, cgroup v2.
[[nodiscard]] Features probe_extras();

/// One line of `jail doctor`.
struct FeatureLine {
  const char* name;  ///< "mdwe": also what `require` calls it, where `requirable`
  bool present;
  bool floor;           ///< nothing runs without it
  bool requirable;      ///< may stand in [sandbox] require
  std::string detail;   ///< "ABI 7"
  const char* meaning;  ///< what it gives, in one clause
};
[[nodiscard]] std::vector<FeatureLine> describe(const Features& features);

/// What `spec` asks for and this kernel does not have, each "NAME: why". What of it `require` demands is an
/// Error (Exit::host); an unknown name in `require` is one, too (Exit::config).
[[nodiscard]] Result<std::vector<std::string>> missing_features(const LaunchSpec& spec,
                                                                const Features& features);

}  // namespace jail::sandbox
