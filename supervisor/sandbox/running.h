// A service that runs: one of its processes, held by a descriptor, proved to be what jaild says that it is.
#pragma once

#include <sys/types.h>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/spec/generation.h"

namespace jail::sandbox {

struct Running {
  UniqueFd process;  ///< pidfd; names this process for ever
  UniqueFd root;     ///< the jail's root directory, O_PATH: inside its mount namespace
  UniqueFd cgroup;   ///< directory of its cgroup (v2); empty where there is none
};

/// Opens the process `pid`. The caller asks jaild for the pid again afterwards: it is that process if jaild
/// still says so and alive() holds then.
[[nodiscard]] Result<UniqueFd> open_process(pid_t pid);
[[nodiscard]] bool alive(int process);

/// What belongs to `process`, whose pid is `pid`. Its root must be the tree of `generation`: whatever else it
/// is, it is no jail of ours then (Exit::unavailable).
[[nodiscard]] Result<Running> look_at(UniqueFd process, pid_t pid, const generation::Opened& generation);

}  // namespace jail::sandbox
