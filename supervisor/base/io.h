// Whole reads and writes over descriptors, interrupted calls and short counts included.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"

namespace jail {

/// Reads all of `fd` from its current position. More than `limit` bytes is an error. `name` is for messages.
[[nodiscard]] Result<std::string> read_all(int fd, std::size_t limit, std::string_view name);

/// Opens `path` relative to `dirfd` (never blocking, a final symlink is followed only if `follow`), demands a
/// regular file, and reads it whole. A missing file is Exit::no_input, anything else Exit::io.
[[nodiscard]] Result<std::string> read_file_at(int dirfd, const std::string& path, std::size_t limit,
                                               bool follow = true);

/// Writes all of `bytes` to `fd`.
[[nodiscard]] Result<void> write_all(int fd, std::string_view bytes, std::string_view name);

/// Replaces `name` (one component) in the directory `dirfd` with `bytes`: a temporary file beside it, fsync
/// when `durable`, rename. Readers see the old or the new content, never a part. `mode` is not subject to the
/// umask.
[[nodiscard]] Result<void> replace_file_at(int dirfd, const std::string& name, std::string_view bytes,
                                           unsigned mode, bool durable);

/// mkdir -p below `dirfd`, each missing component made with `mode` (the umask aside); returns a
/// descriptor of the last one (O_PATH is not used: it can be fsynced and read).
[[nodiscard]] Result<UniqueFd> make_dirs_at(int dirfd, const std::string& path, unsigned mode);

}  // namespace jail
