// A command that joins a jail that runs: in the service's namespaces and its tree, as the service's user,
// with the capabilities, the limits and the filter of its launch. What it may is what the daemon may, but for
// one thing: it may signal the jail's processes (where Landlock keeps a service from signals, that holds
// between it and the daemon, too: the command is outside of the daemon's domain).
#pragma once

#include <string>
#include <vector>

#include "supervisor/sandbox/running.h"
#include "supervisor/sandbox/sandbox.h"

namespace jail::sandbox {

struct JoinInputs {
  std::string program;            ///< absolute, in the jail
  std::vector<std::string> argv;  ///< with its name first
  std::vector<std::string> env;   ///< KEY=value, besides the launch's own
  int standard[3] = {0, 1, 2};    ///< what becomes stdin, stdout, stderr
  bool terminal = false;          ///< one of them is a terminal made for it
};

struct Joined {
  UniqueFd process;  ///< pidfd of the child
  /// Its set-up: nothing and end of stream when the program runs, else one record; see joined_failure().
  UniqueFd status;
};

/// The jail's pid namespace is that of every child of this process from now on.
[[nodiscard]] Result<void> enter_pid_namespace(const Running& running);

/// Starts the command, a child of ours that dies with us. It has one life with the jail: the end of its init
/// ends it, and where there are cgroups it is in the service's.
[[nodiscard]] Result<Joined> join(const Prepared& prepared, const Running& running, const JoinInputs& inputs);

struct JoinFailure {
  std::string step;  ///< "exec /bin/x", "setresuid"
  int error = 0;
  bool exec = false;  ///< all was well but the program could not be executed
};
/// Waits until the program runs (nothing) or its set-up has failed.
[[nodiscard]] std::optional<JoinFailure> joined_failure(const Joined& joined);

}  // namespace jail::sandbox
