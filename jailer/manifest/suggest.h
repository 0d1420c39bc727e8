// "did you mean": the nearest known word.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace jail::manifest {

/// The candidate with the fewest edits (insert, delete, replace, swap of neighbours) from `word`, if few
/// enough for a slip of the fingers; empty otherwise. Upper and lower case, '-' and '_' count as the same.
[[nodiscard]] std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

/// "; did you mean 'libraries'?", or nothing.
[[nodiscard]] std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace jail::manifest
