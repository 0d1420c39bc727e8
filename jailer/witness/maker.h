// Who builds, and for which instance.
#pragma once

#include <string>

#include "supervisor/spec/instance.h"

namespace jail {

/// Fields that stand for this program and the instance's places: another program, or another list of
/// directories, builds otherwise.
[[nodiscard]] std::string maker_of(const Instance& instance);

}  // namespace jail
