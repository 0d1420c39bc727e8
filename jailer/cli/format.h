// How numbers and JSON look in the output of the verbs.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "jailer/closure/plan.h"

namespace jail::cli {

/// "812 B", "4.5 KiB", "56 MiB": three digits are enough.
[[nodiscard]] std::string human_size(std::uint64_t bytes);

/// As ls(1) has it: "d", "-", "l", "c", "b".
[[nodiscard]] char type_letter(EntryType type);

/// Prints JSON on stdout, indented; bytes that are not UTF-8 become the replacement character.
void print_json(const nlohmann::json& value);

}  // namespace jail::cli
