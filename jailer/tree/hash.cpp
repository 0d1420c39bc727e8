#include "jailer/tree/hash.h"

#include <openssl/crypto.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "supervisor/base/quote.h"

namespace jail::tree {

Result<Sha256> Sha256::make() {
  // No openssl.cnf: it costs time, and what it says (engines, providers) is none of ours.
  OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr);
  Sha256 hash;
  hash.algorithm_.reset(EVP_MD_fetch(nullptr, "SHA256", nullptr));
  hash.context_.reset(EVP_MD_CTX_new());
  if (!hash.algorithm_ || !hash.context_ ||
      EVP_DigestInit_ex2(hash.context_.get(), hash.algorithm_.get(), nullptr) != 1)
    return fail(Exit::internal, "libcrypto offers no SHA-256");
  return hash;
}

void Sha256::update(const void* bytes, std::size_t size) {
  // Fails only for a context that was never begun.
  (void)EVP_DigestUpdate(context_.get(), bytes, size);
}

std::string Sha256::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  (void)EVP_DigestFinal_ex(context_.get(), digest.data(), &length);
  (void)EVP_DigestInit_ex2(context_.get(), nullptr, nullptr);
  static constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  text.reserve(2UL * length);
  for (unsigned i = 0; i < length; ++i) {
    text += digits[digest.at(i) >> 4U];
    text += digits[digest.at(i) & 15U];
  }
  return text;
}

Result<std::string> sha256_hex(std::string_view bytes) {
  JAIL_TRY(hash, Sha256::make());
  hash.update(bytes);
  return hash.hex();
}

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
