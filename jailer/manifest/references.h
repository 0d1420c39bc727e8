// The other files that a manifest names.
#pragma once

#include <vector>

#include "jailer/manifest/model.h"
#include "jailer/manifest/reader.h"

namespace jail::manifest {

/// A problem for each bundle ([tree] include) and syscall group ([sandbox] syscalls) of `manifest` that
/// cannot be found or read. For lint: a build meets them anyway.
[[nodiscard]] std::vector<Problem> check_references(const Instance& instance, const Manifest& manifest);

}  // namespace jail::manifest
