#include "jailer/elf/script.h"

#include <algorithm>

namespace jail::elf {
namespace {

constexpr std::size_t kBuffer = 256;  // BINPRM_BUF_SIZE

}  // namespace

Result<std::optional<Script>> parse_script(std::string_view bytes) {
  if (bytes.substr(0, 2) != "#!") return std::optional<Script>{};
  constexpr std::string_view blanks = " \t";
  const bool cut = bytes.size() > kBuffer;
  bytes = bytes.substr(2, kBuffer - 2);
  const std::size_t newline = bytes.find('\n');
  std::string_view line = bytes.substr(0, newline);
  // Without a newline in the buffer the name must end before the buffer does, or it may be cut short.
  if (newline == std::string_view::npos) {
    const std::size_t name = line.find_first_not_of(blanks);
    const bool ends = name != std::string_view::npos &&
                      line.find_first_of(std::string_view(" \t\0", 3), name) != std::string_view::npos;
    if (cut && !ends)
      return fail(Exit::manifest,
                  "its #! line names an interpreter beyond the 256 bytes that the kernel reads");
  }
  line = line.substr(0, line.find_last_not_of(blanks) + 1);
  line.remove_prefix(std::min(line.find_first_not_of(blanks), line.size()));
  line = line.substr(0, line.find('\0'));
  if (line.empty()) return fail(Exit::manifest, "its #! line names no interpreter");
  const std::size_t end = std::min(line.find_first_of(blanks), line.size());
  Script script;
  script.interpreter = std::string(line.substr(0, end));
  std::string_view rest = line.substr(end);
  rest.remove_prefix(std::min(rest.find_first_not_of(blanks), rest.size()));
  script.argument = std::string(rest);
  return std::optional<Script>(std::move(script));
}

}  // namespace jail::elf
