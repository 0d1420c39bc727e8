#include "jailer/tree/lock_text.h"

#include <algorithm>
#include <cstddef>

namespace jail::tree {
namespace {

unsigned char byte(std::string_view text, std::size_t at) {
  return static_cast<unsigned char>(text[at]);
}

/// The length of the valid UTF-8 sequence at `at`; 0 if there is none (RFC 3629: no surrogates, nothing
/// overlong).
std::size_t utf8_length(std::string_view text, std::size_t at) {
  const unsigned lead = byte(text, at);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || at + length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(text, at + i) & 0xc0U) != 0x80U) return 0;
  const unsigned second = byte(text, at + 1);
  const bool bad = (lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) ||
                   (lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f);
  return bad ? 0 : length;
}

constexpr std::string_view digits = "0123456789abcdef";

}  // namespace

std::string to_text(std::string_view bytes) {
  auto plain = [](char c) { return static_cast<unsigned char>(c) < 0x80 && c != '\\'; };
  if (std::all_of(bytes.begin(), bytes.end(), plain)) return std::string(bytes);
  std::string text;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t length = utf8_length(bytes, at);
    if (bytes[at] == '\\') {
      text += "\\\\";
    } else if (length == 0) {
      text += "\\x";
      text += digits[byte(bytes, at) >> 4U];
      text += digits[byte(bytes, at) & 15U];
    } else {
      text += bytes.substr(at, length);
    }
    at += length == 0 ? 1 : length;
  }
  return text;
}

std::optional<std::string> from_text(std::string_view text) {
  std::string bytes;
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] != '\\') {
      bytes += text[at++];
    } else if (text.substr(at, 2) == "\\\\") {
      bytes += '\\';
      at += 2;
    } else if (text.substr(at, 2) == "\\x" && at + 4 <= text.size()) {
      const std::size_t high = digits.find(text[at + 2]);
      const std::size_t low = digits.find(text[at + 3]);
      if (high == std::string_view::npos || low == std::string_view::npos) return std::nullopt;
      bytes += static_cast<char>(high * 16 + low);
      at += 4;
    } else {
      return std::nullopt;
    }
  }
  return to_text(bytes) == text ? std::optional(bytes) : std::nullopt;
}

}  // namespace jail::tree
