// How people read sizes.
#pragma once

#include <cstdint>
#include <string>

namespace jail::views {

/// "812 B", "4.5 KiB", "56 MiB": three digits are enough.
[[nodiscard]] std::string human_size(std::uint64_t bytes);

}  // namespace jail::views
