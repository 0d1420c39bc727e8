// Hashes of files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "jailer/digest/digest.h"
#include "jailer/tree/progress.h"
#include "supervisor/base/error.h"

namespace jail::tree {

/// For hash_file().
struct ReadOptions {
  /// No more than one byte behind so many is read: a file that grew has another hash, and one that grows
  /// without end has an end.
  std::uint64_t most = std::numeric_limits<std::uint64_t>::max() - 1;
  Progress* progress = nullptr;
};

/// Reads all of `fd` from its beginning (by pread) and hashes it; `buffer` is working space. `name` is for
/// messages.
[[nodiscard]] Result<std::string> hash_file(int fd, Sha256& hash, std::string& buffer, std::string_view name,
                                            const ReadOptions& options = {});

/// How much is read at once: larger ones leave the second-level cache.
inline constexpr std::size_t chunk_size = 256UL << 10U;

}  // namespace jail::tree
