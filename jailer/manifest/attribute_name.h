// Names of extended attributes that a manifest may ask for, and so a lock may have.
#pragma once

#include <string>
#include <string_view>

namespace jail::manifest {

/// Why `name` is none of them, empty if it is: of a name space that files have, and of letters that neither a
/// terminal, a line of a lock nor a key of an archive takes for something else.
[[nodiscard]] std::string attribute_problem(std::string_view name);

}  // namespace jail::manifest
