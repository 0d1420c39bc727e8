// The tree of an open generation, as a root that no path leads out of.
#pragma once

#include "jailer/tree/root_dir.h"
#include "supervisor/base/error.h"
#include "supervisor/spec/generation.h"

namespace jail::views {

[[nodiscard]] Result<tree::RootDir> tree_of(const generation::Opened& opened);

}  // namespace jail::views
