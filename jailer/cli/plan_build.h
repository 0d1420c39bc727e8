// From the name of a jail to all that a build of it needs.
#pragma once

#include <string>

#include "jailer/cli/cli.h"
#include "jailer/tree/builder.h"

namespace jail::cli {

struct Planned {
  Plan plan;
  Frozen frozen;
  manifest::Manifest manifest;
};

/// Reads the manifest `name` (or the one at that path), plans its tree, lays out its policy. Changes nothing.
/// What was looked at for that is noted in `looks`; `memo` as make_plan() has it.
[[nodiscard]] Result<Planned> plan_build(const Context& context, const std::string& name,
                                         Looks* looks = nullptr, Memo* memo = nullptr);

}  // namespace jail::cli
