// Plan -> tree: makes every entry below an empty directory, which nothing is written outside of.
#pragma once

#include "jailer/tree/materials.h"
#include "jailer/tree/root_dir.h"
#include "jailer/tree/store.h"
#include "supervisor/base/error.h"

namespace jail::tree {

/// What a plan must be for populate(): clean paths, each in a directory of the plan, sane modes, names and
/// targets.
[[nodiscard]] Result<void> check_plan(const Plan& plan);

/// Makes the entries of `plan` below `tree`. `materials` are those of its files, in the same order.
[[nodiscard]] Result<void> populate(const Plan& plan, const std::vector<Material>& materials,
                                    const RootDir& sources, const RootDir& tree, const Store& store);

}  // namespace jail::tree
