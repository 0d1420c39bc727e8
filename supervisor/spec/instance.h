// Where one instance of jail keeps its things. The system's own follows the FHS; `--home DIR` (or JAIL_HOME)
// puts a whole instance below DIR, so that several live on one machine and a test needs no system path.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/error.h"

namespace jail {

/// All paths are absolute and without a trailing slash.
struct Instance {
  std::string home;   ///< empty for the system's instance
  std::string state;  ///< /var/lib/jail, or HOME/state: store/, jails/, volumes/, enabled/
  std::string run;    ///< /run/jail, or HOME/run: control socket, per service sockets; gone after a boot
  std::string log;    ///< /var/log/jail, or HOME/log: NAME.log, jaild.log
  std::string etc;    ///< /etc/jail, or HOME/config: NAME/, the configuration that `jail init` lays out
  /// Where manifests are looked for, weakest first: /usr/lib/jail/manifests (of the install prefix),
  /// /run/jail/manifests, /etc/jail/manifests, then HOME/manifests and --manifests where given.
  std::vector<std::string> manifest_dirs;

  [[nodiscard]] std::string store() const { return state + "/store"; }
  [[nodiscard]] std::string jails() const { return state + "/jails"; }
  [[nodiscard]] std::string jail(const std::string& name) const { return jails() + "/" + name; }
  [[nodiscard]] std::string volumes() const { return state + "/volumes"; }
  [[nodiscard]] std::string enabled() const { return state + "/enabled"; }
  [[nodiscard]] std::string config(const std::string& name) const { return etc + "/" + name; }
  /// Where the admin's drop-ins go.
  [[nodiscard]] std::string own_manifests() const { return (home.empty() ? etc : home) + "/manifests"; }
  [[nodiscard]] std::string services() const { return run + "/services"; }
  [[nodiscard]] std::string control_socket() const { return run + "/control"; }
};

/// The instance that `home` and `manifests` name (the command line's, or the environment's JAIL_HOME and
/// JAIL_MANIFESTS when these are empty). Relative paths are taken from the current directory. Makes nothing.
[[nodiscard]] Result<Instance> find_instance(std::optional<std::string> home,
                                             std::optional<std::string> manifests);

/// Whether `name` can name a jail: [a-z0-9][a-z0-9._-]*, optionally with @instance of the same letters
/// behind, 64 bytes at most. Names become file names, cgroup names and log tags; this is the only check that
/// they need.
[[nodiscard]] bool valid_name(std::string_view name);

}  // namespace jail
