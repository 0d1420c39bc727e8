// The finished tree, asked by the loader's rules once more.
#pragma once

#include <string>

#include "jailer/closure/plan.h"
#include "jailer/tree/lock.h"
#include "jailer/tree/root_dir.h"
#include "supervisor/base/error.h"

namespace jail::tree {

/// Resolves each program of `plan` inside `tree`, as ld.so will, and demands the very files that it has in
/// the source root, in the same order. Exit::manifest names the program, and the first library that is
/// another or is not found: a tree that keeps its programs elsewhere than the host may have lost an $ORIGIN.
/// Reads only.
[[nodiscard]] Result<void> check_closures(const Plan& plan, const RootDir& tree);

/// A hash of all that check_closures() may look at in a tree that is as `lock` says, and of what it demands.
[[nodiscard]] std::string closures_fingerprint(const Plan& plan, const Lock& lock);

}  // namespace jail::tree
