// .note.dlopen (UAPI.12): what an object says of the libraries that it loads at run time. The words of
// whoever made the file, and so hostile: what is not as the specification has it is refused whole.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/error.h"

namespace jail::elf {

enum class DlopenPriority : std::uint8_t { required, recommended, suggested };

/// One thing that is loaded, and what for.
struct DlopenNeed {
  std::vector<std::string> sonames;  ///< alternatives, the preferred first: the first that is there counts
  std::string feature;               ///< may be empty; several entries may share one
  std::string description;
  DlopenPriority priority = DlopenPriority::recommended;
};

/// Reads the JSON of one note. An error says what is wrong with it, without the file's name.
[[nodiscard]] Result<std::vector<DlopenNeed>> read_dlopen_note(std::string_view text);

/// "required", "recommended", "suggested".
[[nodiscard]] const char* to_text(DlopenPriority priority);

}  // namespace jail::elf
