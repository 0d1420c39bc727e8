// Volumes: STATE/volumes/NAME, state that outlives generations. Made by a build, never changed or removed by
// one.
#pragma once

#include <vector>

#include "jailer/closure/plan.h"
#include "supervisor/base/error.h"
#include "supervisor/spec/instance.h"

namespace jail::tree {

/// Checks that each volume is there as planned; one with another owner or mode is Exit::config with the
/// command that mends it. Where `make`, missing ones are made: whole, by rename; and so are the
/// directories (volume_directories.h) and the empty files that each must have. What stands there already
/// under such a name is left alone, whatever it is. Returns whether all are there.
[[nodiscard]] Result<bool> check_volumes(const Instance& instance, const std::vector<PlannedVolume>& volumes,
                                         bool make);

/// Removes the volume `name` with all that is in it.
[[nodiscard]] Result<void> remove_volume(const Instance& instance, const std::string& name);

}  // namespace jail::tree
