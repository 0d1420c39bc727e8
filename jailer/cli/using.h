// Which services use a file: for those who change one and want it read anew.
#pragma once

#include <string>
#include <vector>

#include "jailer/cli/cli.h"

namespace jail::cli {

/// The services that run and show one of `paths`, live, as a [[config]] of the generation that runs: the path
/// itself, what is above it or below it; by its name and by the place that its links lead to. Sorted.
[[nodiscard]] Result<std::vector<std::string>> services_using(const Instance& instance,
                                                              const std::vector<std::string>& paths);

}  // namespace jail::cli
