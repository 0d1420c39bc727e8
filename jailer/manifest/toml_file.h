// TOML text -> value tree.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "jailer/manifest/problems.h"
#include "jailer/manifest/value.h"

namespace jail::manifest {

/// A manifest is a few kilobytes; what is larger than this is not one, and is refused before it costs
/// anything.
inline constexpr std::size_t max_file_size = 256UL * 1024UL;

/// Reads `text` (of at most max_file_size bytes). `file` is its name in origins and messages. Nothing if it
/// is no TOML: toml++'s words are then among `problems`. Strings and keys with NUL bytes are problems, too.
/// Nesting deeper than 16 levels is refused before toml++ sees it: it would recurse over it.
[[nodiscard]] std::optional<Value> parse_toml(std::string_view text, const std::string& file,
                                              Problems& problems);

}  // namespace jail::manifest
