// The relay's own sandbox.
#pragma once

#include "supervisor/base/error.h"

namespace jail::log {

/// Gives up, for ever, all that the relay does not need: an empty root and namespaces of its own (not of
/// pids: in one of its own every sender would be pid 0), uid and gid 65534, no groups, no capabilities,
/// no_new_privs, and a seccomp filter of some twenty calls, none of which opens, makes or signals anything.
/// Verified from the kernel. Called as root by a process of one thread, which must end when this fails.
[[nodiscard]] Result<void> confine();

}  // namespace jail::log
