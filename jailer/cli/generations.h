// What the verbs that look at generations share.
#pragma once

#include <string>
#include <vector>

#include "jailer/cli/cli.h"
#include "supervisor/spec/generation.h"

namespace jail::cli {

/// The generation `number` of the jail that `name_or_path` means; the current one for 0. Exit::no_input, with
/// the command that lists those that are there, where it is not.
[[nodiscard]] Result<generation::Opened> open_generation(const Context& context,
                                                         const std::string& name_or_path,
                                                         unsigned long number);

/// The names of all jails that are built.
[[nodiscard]] Result<std::vector<std::string>> built_jails(const Context& context);

}  // namespace jail::cli
