// `#!` lines, as the kernel reads them (binfmt_script).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "supervisor/base/error.h"

namespace jail::elf {

/// What the kernel would run for a script: INTERPRETER [ARGUMENT] SCRIPT ...
struct Script {
  std::string interpreter;
  std::string argument;  ///< all of the rest of the line, one argument; may be empty
};

/// The kernel looks at the first 256 bytes; give at least those. nullopt: not a script. A line that names no
/// interpreter, or one whose name runs beyond the 256 bytes, is an error (the kernel: ENOEXEC).
[[nodiscard]] Result<std::optional<Script>> parse_script(std::string_view bytes);

}  // namespace jail::elf
