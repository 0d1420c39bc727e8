// What the verbs that look at generations share.
#pragma once

#include <ctime>
#include <optional>
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

/// The jails that have a current generation, sorted.
[[nodiscard]] Result<std::vector<std::string>> built_jails(const Instance& instance);

/// The time that SOURCE_DATE_EPOCH gives, if it is set. Exit::usage where that is no time.
[[nodiscard]] Result<std::optional<std::time_t>> source_date_epoch();

}  // namespace jail::cli
