// Hostile bytes made printable: file names, manifest values, what a jailed process sent.
#pragma once

#include <string>
#include <string_view>

namespace jail {

/// `bytes` in single quotes, control bytes and invalid UTF-8 as \xHH, the quote and the backslash escaped;
/// cut at `limit` input bytes with "..." behind. For error messages.
[[nodiscard]] std::string quote(std::string_view bytes, std::size_t limit = 256);

/// `bytes` without quotes and cut, each control byte (C0, DEL, and the C1 controls U+0080-U+009F) and each
/// byte that is not valid UTF-8 as \xHH; a backslash stays. For log lines: the result is one line, safe on a
/// terminal.
[[nodiscard]] std::string escape(std::string_view bytes);

}  // namespace jail
