// What a service has said of late, from the file that the relay writes: for jail status.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

namespace jail::loop {

/// The last `count` lines of LOG/NAME.log, escaped.
[[nodiscard]] std::vector<std::string> last_lines(const std::string& file, std::size_t count);

/// The last `count` of those that tell of an error (severity err or worse) and were logged in the ten seconds
/// from `since` on.
[[nodiscard]] std::vector<std::string> error_lines(const std::string& file,
                                                   std::chrono::system_clock::time_point since,
                                                   std::size_t count);

}  // namespace jail::loop
