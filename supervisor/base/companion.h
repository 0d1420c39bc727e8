// Our own programs that start each other: found beside the one that runs, as in a build directory, or where
// they are installed.
#pragma once

#include <string>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"

namespace jail {

/// The path of the program that runs.
[[nodiscard]] Result<std::string> own_program();

/// The path of our program `name`, for the one at `own`.
[[nodiscard]] Result<std::string> companion(const std::string& own, const std::string& name);

/// The same, open for reading.
[[nodiscard]] Result<UniqueFd> open_companion(const std::string& own, const std::string& name);

}  // namespace jail
