// What must hold between the values of a manifest, each of them well on its own.
#pragma once

#include "jailer/manifest/binder.h"
#include "jailer/manifest/model.h"
#include "jailer/manifest/problems.h"

namespace jail::manifest {

/// Adds a problem for each rule that `manifest` (defaults filled in, origins set) breaks. Values that
/// `binder` found broken are left alone: one mistake, one message. `file` is blamed where no value can be.
void check(const Manifest& manifest, const Binder& binder, const std::string& file, Problems& problems);

/// The nearest origin at or above `path` ("service.restart.on", "tree.binaries[0]"); null if there is none.
[[nodiscard]] const Origin* nearest_origin(const std::map<std::string, Origin>& origins, std::string path);

}  // namespace jail::manifest
