// How numbers and JSON look in the output of the verbs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "jailer/closure/plan.h"
#include "jailer/views/format.h"

namespace jail::cli {

using views::human_size;

/// As ls(1) has it: "d", "-", "l", "c", "b".
[[nodiscard]] char type_letter(EntryType type);

/// Prints JSON on stdout, indented; bytes that are not UTF-8 become the replacement character.
void print_json(const nlohmann::json& value);

}  // namespace jail::cli
