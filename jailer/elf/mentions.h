// Strings of an ELF file that look like libraries: what it may load at run time, and says nowhere else.
#pragma once

#include <string>
#include <vector>

#include "jailer/elf/source.h"

namespace jail::elf {

/// Whole strings of the file's constant data that are a library's name ("libidn2.so.0") or an absolute path
/// of one, sorted, without doubles, a bounded number. Nothing for what is not ELF, or broken.
[[nodiscard]] std::vector<std::string> library_mentions(const ByteSource& source);

}  // namespace jail::elf
