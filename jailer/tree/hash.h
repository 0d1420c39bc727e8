// SHA-256 by libcrypto.
#pragma once

#include <openssl/evp.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>

#include "jailer/tree/progress.h"
#include "supervisor/base/error.h"

namespace jail::tree {

/// A running SHA-256. The algorithm is fetched once, in make(); one object serves any number of hashes, one
/// after the other, in one thread.
class Sha256 {
 public:
  [[nodiscard]] static Result<Sha256> make();
  void update(const void* bytes, std::size_t size);
  void update(std::string_view bytes) { update(bytes.data(), bytes.size()); }
  /// The hash of all since the last call, in lower-case hex; the next update() begins a new one.
  [[nodiscard]] std::string hex();

 private:
  struct Free {
    void operator()(EVP_MD* p) const { EVP_MD_free(p); }
    void operator()(EVP_MD_CTX* p) const { EVP_MD_CTX_free(p); }
  };
  Sha256() = default;
  std::unique_ptr<EVP_MD, Free> algorithm_;
  std::unique_ptr<EVP_MD_CTX, Free> context_;
};

/// The hash of `bytes`.
[[nodiscard]] Result<std::string> sha256_hex(std::string_view bytes);

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
