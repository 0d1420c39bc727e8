// A tree for elsewhere: as a tar archive, or as a specification that mtree(8) and bsdtar verify by. The same
// tree gives the same bytes wherever it was built: all comes from the lock, in its order, but for the content
// of files, which is checked against it.
#pragma once

#include <ctime>
#include <functional>
#include <string>
#include <string_view>

#include "jailer/tree/lock.h"
#include "jailer/tree/root_dir.h"
#include "jailer/views/locked_file.h"
#include "supervisor/base/error.h"

namespace jail::views {

struct ExportOptions {
  bool with_secrets = false;
  std::time_t time = 0;  ///< of modification, of every entry
};

/// A POSIX tar (ustar, with pax headers where a value does not fit). After an error the archive that was
/// written is cut short: it has no end mark.
[[nodiscard]] Result<void> export_tar(const Lock& lock, const tree::RootDir& tree,
                                      const ExportOptions& options, const Take& write);

/// Type, mode, owner, size, SHA-256, target and device of each entry; no times, and no extended attributes,
/// for which mtree has no word. Reads nothing.
[[nodiscard]] std::string export_mtree(const Lock& lock, const ExportOptions& options);

}  // namespace jail::views
