// Launch spec -> confined process. Everything that can be prepared once per generation is (paths,
// descriptors, the filter); launching is then a clone3 and the fixed order of steps in after_fork.cpp, which
// neither allocates nor locks.
//
//   jaild --clone3--> init (pid 1 of the jail: mounts, pivot_root; then jail-init, reaps) --clone3--> daemon
//   (pid 2)
//
// Nothing here waits. The child tells its fate on `Launched::report`, one record a message: at most one
// `failed`, or one `running` followed by one `exited`. The end of the stream without `exited` means that the
// init was killed (and with it, by the kernel, all of the jail).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/spec/generation.h"
#include "supervisor/spec/launch_spec.h"

namespace jail::sandbox {

/// A generation ready to be launched any number of times. Owns its descriptors.
class Prepared {
 public:
  /// Reads launch.json and filter.bpf of `opened`, opens the tree and the sources of mounts. Demands what the
  /// spec requires of the kernel (Exit::host, naming what is missing and the manifest key that asked for it).
  [[nodiscard]] static Result<Prepared> prepare(const generation::Opened& opened);
  /// The same for its check_config: that command instead of the daemon, without network and sockets, and with
  /// nothing of the host to write to.
  [[nodiscard]] static Result<Prepared> prepare_config_check(const generation::Opened& opened);
  /// The same for `program`, a file of the host that is shown in the jail's own /run and nowhere else, with
  /// `words` behind its name: as the service's user, without any capability.
  [[nodiscard]] static Result<Prepared> prepare_probe(const generation::Opened& opened,
                                                      const std::string& program,
                                                      const std::vector<std::string>& words);
  Prepared(Prepared&&) noexcept;
  Prepared& operator=(Prepared&&) noexcept;
  ~Prepared();

  [[nodiscard]] const LaunchSpec& spec() const;

  /// What this kernel could not add, in words ("landlock: not in this kernel"): for `jail status` and doctor.
  [[nodiscard]] const std::vector<std::string>& not_enforced() const;

  struct Impl;
  [[nodiscard]] const Impl& impl() const { return *impl_; }

 private:
  explicit Prepared(std::unique_ptr<Impl> impl);
  [[nodiscard]] static Result<Prepared> prepare(const generation::Opened& opened, LaunchSpec spec);
  std::unique_ptr<Impl> impl_;
};

/// A listening socket handed to the daemon as descriptor 3 and up (sd_listen_fds(3)).
struct PassedSocket {
  int fd = -1;
  std::string name;  ///< LISTEN_FDNAMES
};

/// What differs from launch to launch. Borrowed: the caller keeps all descriptors.
struct LaunchInputs {
  int stdout_fd = -1;  ///< write end of the relay's pipe
  int stderr_fd = -1;
  std::string log_socket;  ///< host path of the bound datagram socket shown as /dev/log; empty: none
  std::string
      notify_socket;    ///< host path of the one shown as /run/systemd/notify; empty: none, no NOTIFY_SOCKET
  int cgroup_fd = -1;   ///< directory of the service's cgroup (CLONE_INTO_CGROUP); -1: none
  int init_fd = -1;     ///< the jail-init program
  int network_fd = -1;  ///< a network namespace that is there already, for network = private; -1: a new one
  std::vector<PassedSocket> sockets;
};

struct Launched {
  UniqueFd init;  ///< pidfd of the jail's pid 1
  pid_t init_pid = -1;
  UniqueFd report;  ///< non-blocking; see read_report()
};

/// Starts the service of `prepared`. Returns as soon as the child exists; an Error means that none does.
[[nodiscard]] Result<Launched> launch(const Prepared& prepared, const LaunchInputs& inputs);

struct Report {
  enum class Kind : std::uint8_t { failed, running, exited };
  Kind kind = Kind::failed;
  std::string step;  ///< failed: "mount /dev/null", "setresuid" ...
  int error = 0;     ///< failed: errno
  UniqueFd daemon;   ///< running: pidfd of the daemon itself (exec has succeeded)
  pid_t pid = -1;    ///< running: its pid in our pid namespace; -1 when it has ended already
  int status = 0;    ///< exited: as waitpid(2) gives it (WIFEXITED ...)
};

/// The next record of a report channel: nothing if none has come yet; Exit::unavailable at the end of the
/// stream.
[[nodiscard]] Result<std::optional<Report>> read_report(int report_fd);

}  // namespace jail::sandbox
