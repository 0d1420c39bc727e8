#include "supervisor/base/quote.h"

#include <fmt/format.h>

#include <iterator>

namespace jail {
namespace {

// The length of the valid UTF-8 sequence (RFC 3629: no surrogates, no overlong forms) at `at`; 0 if there is
// none.
std::size_t sequence_length(std::string_view text, std::size_t at) {
  auto byte = [&](std::size_t i) -> unsigned {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0U;
  };
  auto continues = [&](std::size_t i) { return (byte(i) & 0xC0U) == 0x80U; };
  const unsigned lead = byte(0);
  if (lead < 0x80U) return 1;
  if (lead >= 0xC2U && lead <= 0xDFU) return continues(1) ? 2 : 0;
  if (lead >= 0xE0U && lead <= 0xEFU) {
    if (!continues(1) || !continues(2)) return 0;
    if (lead == 0xE0U && byte(1) < 0xA0U) return 0;
    if (lead == 0xEDU && byte(1) > 0x9FU) return 0;
    return 3;
  }
  if (lead >= 0xF0U && lead <= 0xF4U) {
    if (!continues(1) || !continues(2) || !continues(3)) return 0;
    if (lead == 0xF0U && byte(1) < 0x90U) return 0;
    if (lead == 0xF4U && byte(1) > 0x8FU) return 0;
    return 4;
  }
  return 0;
}

void append_safe(std::string& out, std::string_view text, bool quoting) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = sequence_length(text, at);
    const auto first = static_cast<unsigned char>(text[at]);
    const bool control = (length == 1 && (first < 0x20U || first == 0x7FU)) ||
                         (length == 2 && first == 0xC2U && static_cast<unsigned char>(text[at + 1]) < 0xA0U);
    if (length == 0 || control) {
      const std::size_t bytes = length == 0 ? 1 : length;
      for (std::size_t i = 0; i < bytes; ++i)
        fmt::format_to(std::back_inserter(out), "\\x{:02x}", static_cast<unsigned char>(text[at + i]));
      at += bytes;
      continue;
    }
    if (quoting && (first == '\'' || first == '\\')) out += '\\';
    out.append(text.substr(at, length));
    at += length;
  }
}

}  // namespace

std::string quote(std::string_view bytes, std::size_t limit) {
  std::string out = "'";
  append_safe(out, bytes.substr(0, limit), true);
  out += '\'';
  if (bytes.size() > limit) out += "...";
  return out;
}

std::string escape(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  append_safe(out, bytes, false);
  return out;
}

}  // namespace jail
