// How numbers and JSON look in the output of the verbs.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace jail::cli {

/// "812 B", "4.5 KiB", "56 MiB": three digits are enough.
[[nodiscard]] std::string human_size(std::uint64_t bytes);

/// Prints JSON on stdout, indented; bytes that are not UTF-8 become the replacement character.
void print_json(const nlohmann::json& value);

}  // namespace jail::cli
