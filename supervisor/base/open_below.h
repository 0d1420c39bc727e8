// Opening below a directory that no path, symlink or race leads out of: by openat2, or, where that is missing
// (ENOSYS, E2BIG), refused by a container's filter (EPERM) or defeated by renames without end (EAGAIN), step
// by step through descriptors. All return an empty descriptor with errno; O_CLOEXEC is added to `flags`.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "supervisor/base/fd.h"

namespace jail {

/// `components` is what `automatic` falls back to.
enum class Walk : std::uint8_t { automatic, components };

/// No symlink on the way or at the end, no "..", no other file system (EXDEV). O_NOFOLLOW is added.
[[nodiscard]] UniqueFd open_beneath(int root, std::string_view path, int flags, Walk walk = Walk::automatic);

/// As open_beneath(), but what is mounted below `root` is entered.
[[nodiscard]] UniqueFd open_without_links(int root, std::string_view path, int flags,
                                          Walk walk = Walk::automatic);

/// As a process with this root would: symlinks and ".." stay inside, links of /proc that lead out do not
/// count. A final symlink is followed unless `flags` holds O_NOFOLLOW.
[[nodiscard]] UniqueFd open_in_root(int root, std::string_view path, int flags, Walk walk = Walk::automatic);

/// Sees every directory that a walk goes through, the root first, and every symlink that it follows; false
/// ends the walk with EPERM.
using VisitStep = std::function<bool(int fd, const std::string& path)>;
/// open_in_root() by components, asking `visit` about each step on the way.
[[nodiscard]] UniqueFd walk_in_root(int root, std::string_view path, int flags, const VisitStep& visit);

}  // namespace jail
