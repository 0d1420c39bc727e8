// Dynamic string tokens ($ORIGIN, $LIB, $PLATFORM) and search path lists, as glibc reads them (rules
// G16-G25).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace jail::elf {

/// What the tokens stand for. A token without a value drops the element that names it.
struct Tokens {
  std::optional<std::string> origin;
  std::optional<std::string> lib;
  std::optional<std::string> platform;
  /// For a program that gives its user more than he has (AT_SECURE): $ORIGIN counts only as the first
  /// component of a path and, where `trusted` is given, only if the path leads below one of these
  /// directories.
  bool secure = false;
  const std::vector<std::string>* trusted = nullptr;  ///< each with its final slash
};

/// True if `text` has a token that glibc would replace: "$ORIGINx" has none.
[[nodiscard]] bool has_token(std::string_view text);

/// `text` with its tokens replaced; nullopt when one of them has no value. Unknown ones stay as they are.
[[nodiscard]] std::optional<std::string> expand(std::string_view text, const Tokens& tokens);

/// One directory of an RPATH or RUNPATH: expanded, without trailing slashes, with one at its end; "" is the
/// current directory.
[[nodiscard]] std::vector<std::string> split_path(std::string_view list, const Tokens& tokens);

}  // namespace jail::elf
