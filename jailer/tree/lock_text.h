// How arbitrary bytes (paths, link targets) are written in JSON, which holds text: a backslash as two, each
// byte that is not part of valid UTF-8 as \xHH. Reversible, and the identity for all usual names.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace jail::tree {

[[nodiscard]] std::string to_text(std::string_view bytes);
/// Nothing for text that to_text() does not write.
[[nodiscard]] std::optional<std::string> from_text(std::string_view text);

}  // namespace jail::tree
