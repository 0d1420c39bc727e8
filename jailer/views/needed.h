// Every DT_NEEDED of a tree. A lock keeps, for each program, who asked for a library first, as ld.so does;
// the others are in the files themselves, so that the lock need not grow by them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "jailer/closure/why.h"
#include "jailer/tree/lock.h"
#include "supervisor/base/fd.h"
#include "supervisor/spec/generation.h"

namespace jail::views {

/// Opens the file that stands at this path of a tree for reading; empty where it cannot.
using Open = std::function<UniqueFd(const std::string& path)>;

/// Adds a "needed" reason for each DT_NEEDED of the ELF files among `files` (paths) to what it names: the
/// library of that soname and the same machine, or of that file name. What cannot be read adds nothing.
void add_needed(Reasons& reasons, const std::vector<std::string>& files, const Open& open);

/// The lock of a generation, with such reasons from the files of its tree.
[[nodiscard]] Result<Lock> lock_with_needed(const generation::Opened& opened);

}  // namespace jail::views
