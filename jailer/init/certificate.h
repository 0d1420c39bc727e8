// Test certificates: self-signed, so that a service that wants TLS can be tried before it has a certificate
// that anybody trusts.
#pragma once

#include <string>

#include "supervisor/base/error.h"

namespace jail::init {

/// PEM, each with a line in front that says what it is.
struct Pair {
  std::string key;
  std::string cert;
};

/// Whose name a test certificate is signed with: "O" of its subject.
inline constexpr const char* test_organization = "test certificate, made by jail init";
inline constexpr int test_days = 90;
inline constexpr std::size_t max_key = 64UL << 10U;

/// A key on P-256 and a certificate for `host` (a name or an address) and for this machine's loopback. Where
/// `key` is not empty, it is the PEM of the key to certify. Exit::usage for a host that is none; Exit::config
/// for a key that cannot be read.
[[nodiscard]] Result<Pair> make_test_certificate(const std::string& host, const std::string& key);

}  // namespace jail::init
