// Running hashes, by libcrypto's plain functions: what its EVP interface brings into a static program (every
// cipher, their names and their tables) takes longer to start than a build takes that has nothing to do.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace jail {

/// A running SHA-256 (FIPS 180-4); one object serves any number of hashes, one after the other, in one
/// thread.
class Sha256 {
 public:
  Sha256();
  void update(const void* bytes, std::size_t size);
  void update(std::string_view bytes) { update(bytes.data(), bytes.size()); }
  /// The hash of all since the last call, in lower-case hex; the next update() begins a new one.
  [[nodiscard]] std::string hex();

 private:
  alignas(8) std::array<std::uint8_t, 112> state_;  ///< libcrypto's SHA256_CTX
};

/// A running SHA-1, for formats that ask for one (SPDX).
class Sha1 {
 public:
  Sha1();
  void update(std::string_view bytes);
  [[nodiscard]] std::string hex();

 private:
  alignas(8) std::array<std::uint8_t, 96> state_;  ///< libcrypto's SHA_CTX
};

[[nodiscard]] std::string sha256_hex(std::string_view bytes);
[[nodiscard]] std::string sha1_hex(std::string_view bytes);

}  // namespace jail
