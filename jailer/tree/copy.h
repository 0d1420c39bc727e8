// How bytes get from a source into a file of ours, and the hash of them on the way.
#pragma once

#include <string>

#include "jailer/tree/parallel.h"
#include "jailer/tree/root_dir.h"
#include "jailer/tree/writeback.h"
#include "jailer/witness/stamp.h"
#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"

namespace jail::tree {

/// A source file, open for reading, with what it was like then.
struct OpenSource {
  UniqueFd fd;
  struct stat status {};
  std::string shown;  ///< for messages
};

/// Opens the regular file `path` below `root` for reading: no final symlink, never blocking, nothing but a
/// regular file.
[[nodiscard]] Result<OpenSource> open_source(const RootDir& root, const std::string& path);

/// Copies all of `source` to `target` (an empty file open for writing and reading, named `name` in messages)
/// by the cheapest way that the file systems offer. With `hash`, returns the SHA-256 of what was written;
/// otherwise an empty string, and nothing is read into memory where that can be avoided. `writeback` may be
/// null.
[[nodiscard]] Result<std::string> copy_bytes(const OpenSource& source, int target, const std::string& name,
                                             bool hash, Worker& worker, Writeback* writeback = nullptr);

/// Whether the source still is what it was when it was opened.
[[nodiscard]] bool unchanged(const OpenSource& source);

}  // namespace jail::tree
