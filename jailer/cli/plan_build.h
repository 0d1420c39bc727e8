// From the name of a jail to all that a build of it needs.
#pragma once

#include <string>

#include "jailer/cli/cli.h"
#include "jailer/tree/builder.h"

namespace jail::cli {

struct Planned {
  Plan plan;
  Frozen frozen;
  std::vector<std::string> manifests;  ///< that it was read from
  std::vector<std::string> live;       ///< paths of the tree that show the host's files, by mounts
};

/// Reads the manifest `name` (or the one at that path), plans its tree, lays out its policy. Changes nothing.
[[nodiscard]] Result<Planned> plan_build(const Context& context, const std::string& name);

}  // namespace jail::cli
