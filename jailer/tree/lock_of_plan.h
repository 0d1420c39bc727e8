// Plan and materials -> the lock of the tree that they make.
#pragma once

#include "jailer/tree/lock.h"
#include "jailer/tree/materials.h"

namespace jail::tree {

/// `materials` are those of the plan's files, in the same order. Nothing is frozen in it yet.
[[nodiscard]] Result<Lock> lock_of_plan(const Plan& plan, const std::vector<Material>& materials);

}  // namespace jail::tree
