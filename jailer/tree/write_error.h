// A write or a creation that failed: whose affair that is, and what to do next.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "supervisor/base/error.h"

namespace jail::tree {

/// The Exit for a failed write or creation: cannot_create for what the admin must mend (full, read-only),
/// else io.
[[nodiscard]] Exit exit_for_write(int error_number);

/// What to do next about it; empty where nothing is known.
[[nodiscard]] std::string hint_for_write(int error_number);

/// fail_errno() with that exit and that hint.
template <class... Args>
[[nodiscard]] tl::unexpected<Error> fail_write(int error_number, fmt::format_string<Args...> format,
                                               Args&&... args) {
  return with_hint(
      fail_errno(exit_for_write(error_number), error_number, format, std::forward<Args>(args)...),
      hint_for_write(error_number));
}

/// Writes all of `bytes` to `fd`; `shown` is how messages name the file.
[[nodiscard]] Result<void> write_whole(int fd, std::string_view bytes, std::string_view shown);

}  // namespace jail::tree
