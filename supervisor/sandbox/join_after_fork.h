// From fork to exec, for a command that joins a jail that runs. See after_fork.h: the same rules hold.
#pragma once

#include "supervisor/sandbox/after_fork.h"

namespace jail::sandbox {

/// Borrowed memory and descriptors.
struct JoinPlan {
  Plan plan;            ///< of the launch: who a task becomes, its limits and its filter; and parent_fd
  int process_fd = -1;  ///< pidfd of a process of the jail, whose namespaces are joined
  unsigned long namespaces = 0;    ///< CLONE_NEW*, without the pid namespace: that is the caller's to enter
  int root_fd = -1;                ///< the jail's root directory
  int status_fd = -1;              ///< write end: the step that failed; closed by a good exec
  int standard[3] = {-1, -1, -1};  ///< stdin, stdout, stderr
  bool terminal = false;           ///< one of them is a terminal of its own, to be the controlling one
  const char* exec_step = nullptr;
  const char* program = nullptr;  ///< absolute, in the jail
  const char* const* argv = nullptr;
  const char* const* envp = nullptr;
};

/// Called in a child that was born in the jail's pid namespace. Never returns.
[[noreturn]] void run_joined(const JoinPlan& join) noexcept;

}  // namespace jail::sandbox
