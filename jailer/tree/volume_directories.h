// The directories that a volume starts with: many a daemon demands a tree with exact owners and modes, and
// has a script of its own make it as root. Here the build does.
#pragma once

#include <string>

#include "jailer/closure/plan.h"
#include "supervisor/base/error.h"

namespace jail::tree {

/// Looks for the directories that `planned` must have, and where `make`, makes the missing ones. `volume` is
/// its open directory, `path` its name in messages. What stands there already is left alone, whatever its
/// owner and mode; only something that is no directory is Exit::config. Returns whether all are there.
[[nodiscard]] Result<bool> check_directories(int volume, const std::string& path,
                                             const PlannedVolume& planned, bool make);

}  // namespace jail::tree
