// From clone to exec: the fixed order of steps that turns a copy of jaild into the jail's init and its
// daemon.
//
// Everything here runs in a child that may share its memory with another task: no allocation, no locks, no
// exceptions; system calls through raw.h, which knows no errno. The one exception is the C library's clone(),
// which starts the daemon-to-be on a stack of its own: errno is read only where it made no task, and so while
// nobody shares the memory. tests/integration/sandbox_symbols_test.cpp holds this module's object to a short
// list of undefined symbols. All that the steps need is laid out beforehand in a Plan by prepare.cpp and
// launch.cpp.
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>

#include "supervisor/sandbox/record.h"

namespace jail::sandbox {

/// One string option of a new file system; a null key ends the list.
struct FsOption {
  const char* key = nullptr;
  const char* value = nullptr;
};

/// A node of the tree's /dev that the private one shows.
struct DeviceStep {
  const char* step = nullptr;       ///< "mount /dev/null"
  const char* path = nullptr;       ///< relative to /dev
  const char* tree_path = nullptr;  ///< relative to the root
  const char* const* make =
      nullptr;         ///< directories of `path`, relative to /dev, outermost first, null behind
  unsigned major = 0;  ///< demanded of well-known names; 0: any character device
  unsigned minor = 0;
};

struct MountStep {
  enum class Kind : std::uint8_t { bind, tmpfs, proc, dev };
  const char* step = nullptr;  ///< "mount /var/cache/bind"
  Kind kind = Kind::bind;
  bool optional = false;         ///< bind: a source that does not exist is left out
  bool socket = false;           ///< bind: the source must be a socket
  bool make_target = false;      ///< the target lies on a tmpfs of ours, and is made there when it is missing
  bool seal = false;             ///< made read-only when all mounts are there
  const char* source = nullptr;  ///< bind: absolute, on the host
  const char* target = nullptr;  ///< relative to the root
  const char* const* make = nullptr;  ///< directories above `target` to make, outermost first, null behind
  const FsOption* options = nullptr;  ///< of a new file system
  std::uint64_t attributes = 0;  ///< MOUNT_ATTR_* to set; everything else that could loosen is left alone
};

struct RlimitStep {
  const char* step = nullptr;  ///< "setrlimit nofile"
  int resource = 0;
  std::uint64_t soft = 0;
  std::uint64_t hard = 0;
};

/// A port of TCP that may be bound or connected to.
struct PortRule {
  std::uint64_t access = 0;  ///< LANDLOCK_ACCESS_NET_*
  std::uint64_t port = 0;
};

/// Who a task becomes.
struct Identity {
  uid_t uid = 0;
  gid_t gid = 0;
  const gid_t* groups = nullptr;  ///< sorted, as the kernel gives them back
  std::size_t group_count = 0;
  std::uint64_t capabilities = 0;
  unsigned last_capability = 0;  ///< /proc/sys/kernel/cap_last_cap
};

inline constexpr std::size_t max_mounts = 128;
inline constexpr std::size_t max_devices = 32;
inline constexpr std::size_t max_sockets = 64;
inline constexpr std::size_t max_groups = 64;
inline constexpr std::size_t daemon_stack_size = 64 * 1024;

/// All that the steps need. Borrowed memory and descriptors; nothing here is changed by the parent while a
/// child is before its exec (the child has a copy).
struct Plan {
  // Descriptors of jaild.
  int parent_fd = -1;  ///< pidfd of jaild itself
  int report_fd = -1;
  int init_fd = -1;     ///< the jail-init program
  int tree_fd = -1;     ///< O_PATH
  int null_fd = -1;     ///< a null device that belongs to this generation alone
  int network_fd = -1;  ///< a network namespace to join; -1: none
  int stdout_fd = -1;
  int stderr_fd = -1;
  const int* socket_fds = nullptr;
  std::size_t socket_count = 0;

  const MountStep* mounts = nullptr;
  std::size_t mount_count = 0;
  const DeviceStep* devices = nullptr;
  std::size_t device_count = 0;

  const char* hostname = nullptr;
  std::size_t hostname_length = 0;
  bool loopback_up = false;  ///< a network namespace of its own whose lo is brought up
  const char* oom_score = nullptr;
  std::size_t oom_score_length = 0;

  Identity init;
  Identity daemon;
  const RlimitStep* rlimits = nullptr;
  std::size_t rlimit_count = 0;
  int nice = 0;
  unsigned umask = 022;
  const char* cwd = "/";
  bool mdwe = false;
  std::uint64_t landlock_scope = 0;  ///< LANDLOCK_SCOPE_*; 0: none
  std::uint64_t landlock_net = 0;    ///< LANDLOCK_ACCESS_NET_*: what is refused but for `ports`; 0: nothing
  const PortRule* ports = nullptr;
  std::size_t port_count = 0;
  const sock_filter* filter = nullptr;
  unsigned short filter_length = 0;

  const char* exec_step = nullptr;  ///< "exec /usr/sbin/named"
  const char* const* argv = nullptr;
  const char* const* envp = nullptr;
  char* listen_pid = nullptr;    ///< where the daemon writes its pid into the environment; or null
  void* daemon_stack = nullptr;  ///< daemon_stack_size bytes
};

/// The jail's pid 1, called in the child of clone3. Never returns.
[[noreturn]] void run_init(const Plan& plan) noexcept;

}  // namespace jail::sandbox
