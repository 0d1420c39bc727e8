#include "jailer/tree/hash.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "supervisor/base/quote.h"

namespace jail::tree {

Result<std::string> hash_file(int fd, Sha256& hash, std::string& buffer, std::string_view name,
                              const ReadOptions& options) {
  buffer.resize(chunk_size);
  std::uint64_t left = options.most + 1;
  for (off_t at = 0; left > 0;) {
    const std::size_t wanted = std::min<std::uint64_t>(buffer.size(), left);
    const ssize_t got = ::pread(fd, buffer.data(), wanted, at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int error = errno;
      (void)hash.hex();
      return fail_errno(Exit::io, error, "{}: cannot read", quote(name));
    }
    if (got == 0) break;
    const auto size = static_cast<std::size_t>(got);
    hash.update(buffer.data(), size);
    if (options.progress != nullptr) options.progress->done += size;
    at += got;
    left -= size;
  }
  return hash.hex();
}

}  // namespace jail::tree
