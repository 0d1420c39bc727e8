// Deprecated since OpenSSL 3.0 in favour of EVP, for the sake of providers, of which there are none in a
// static program.
#define OPENSSL_API_COMPAT 0x10100000L
#include "jailer/digest/digest.h"

#include <openssl/sha.h>

#include <span>

namespace jail {
namespace {

SHA256_CTX* of_sha256(void* state) {
  return static_cast<SHA256_CTX*>(state);
}
SHA_CTX* of_sha1(void* state) {
  return static_cast<SHA_CTX*>(state);
}

std::string to_hex(std::span<const unsigned char> digest) {
  static constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * digest.size());
  for (const unsigned char byte : digest) {
    text += digits[byte >> 4U];
    text += digits[byte & 15U];
  }
  return text;
}

}  // namespace

// What these functions return is always 1.

Sha256::Sha256() : state_() {
  static_assert(sizeof state_ == sizeof(SHA256_CTX) && alignof(SHA256_CTX) <= 8);
  (void)SHA256_Init(of_sha256(state_.data()));
}

void Sha256::update(const void* bytes, std::size_t size) {
  (void)SHA256_Update(of_sha256(state_.data()), bytes, size);
}

std::string Sha256::hex() {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  (void)SHA256_Final(digest.data(), of_sha256(state_.data()));
  (void)SHA256_Init(of_sha256(state_.data()));
  return to_hex(digest);
}

Sha1::Sha1() : state_() {
  static_assert(sizeof state_ == sizeof(SHA_CTX) && alignof(SHA_CTX) <= 8);
  (void)SHA1_Init(of_sha1(state_.data()));
}

void Sha1::update(std::string_view bytes) {
  (void)SHA1_Update(of_sha1(state_.data()), bytes.data(), bytes.size());
}

std::string Sha1::hex() {
  std::array<unsigned char, SHA_DIGEST_LENGTH> digest{};
  (void)SHA1_Final(digest.data(), of_sha1(state_.data()));
  (void)SHA1_Init(of_sha1(state_.data()));
  return to_hex(digest);
}

std::string sha256_hex(std::string_view bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.hex();
}

std::string sha1_hex(std::string_view bytes) {
  Sha1 hash;
  hash.update(bytes);
  return hash.hex();
}

}  // namespace jail
