// The host, as a program sees it that shall find a jail's things where the jail has them: named's key at
// /etc/bind, Dovecot's sockets at /run/dovecot, whatever lies at these paths otherwise. In a mount namespace
// of the caller's own: the host's mounts, and its directories, stay as they are.
#pragma once

#include "supervisor/base/error.h"
#include "supervisor/spec/instance.h"
#include "supervisor/spec/launch_spec.h"

namespace jail::sandbox {

/// Moves the calling process into a new mount namespace and binds every volume and config of `spec` there at
/// its path in the jail. What lies in volumes is the jail's, and so hostile: no link in them is followed, no
/// device works, nothing is executed. Where the host has no such path, the directory that it would be in is
/// shown with it, and otherwise as it is; what is newly made in such a directory itself is gone with the
/// process. On an error the process is good for nothing but to say so.
[[nodiscard]] Result<void> show_jail(const Instance& instance, const LaunchSpec& spec);

}  // namespace jail::sandbox
