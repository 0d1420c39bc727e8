// Libraries that programs of the tree mention as text: what may be loaded at run time, and nothing has
// brought.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "jailer/closure/plan.h"
#include "jailer/witness/looks.h"
#include "supervisor/base/error.h"

namespace jail {

/// Library, as it is written (elf/mentions.h) -> the source of the first file that mentions it.
using Mentions = std::map<std::string, std::string>;

/// Reads all ELF files of the plan. A build has them from its store instead.
[[nodiscard]] Result<Mentions> read_mentions(const Plan& plan);

/// A warning for each that the source root has, the tree has not, and nobody said to ignore.
/// What was looked at for that is noted in `looks`.
[[nodiscard]] Result<std::vector<std::string>> unmet_mentions(const Plan& plan, const Mentions& mentions,
                                                              Looks* looks = nullptr);

}  // namespace jail
