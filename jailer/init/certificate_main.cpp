// jail-certificate HOST NAMES: a self-signed certificate for what openssl(1) writes as subjectAltName in
// NAMES. Standard input: the PEM of the key to certify, or nothing, and one is made. Standard output: the
// key, then the certificate, in PEM. A program of its own, so that libcrypto's whole is in no other.
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <array>
#include <cstdio>
#include <memory>

#include "jailer/init/certificate.h"
#include "supervisor/base/io.h"

namespace jail::init {
namespace {

template <auto Function>
struct Free {
  template <class T>
  void operator()(T* p) const {
    Function(p);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Bio = std::unique_ptr<BIO, Free<BIO_free>>;
using Number = std::unique_ptr<BIGNUM, Free<BN_free>>;
using Extension = std::unique_ptr<X509_EXTENSION, Free<X509_EXTENSION_free>>;

tl::unexpected<Error> failed() {
  return fail(Exit::internal, "libcrypto cannot make a certificate");
}

std::string contents(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(size)};
}

Result<Key> read_key(const std::string& pem) {
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  // Without this nobody is asked for a passphrase, on the terminal.
  const auto no_passphrase = [](char*, int, int, void*) { return -1; };
  Key key(bio ? PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr) : nullptr);
  if (key) return key;
  return fail(Exit::config, "the key that is there is none that can be read (PEM, without a passphrase)");
}

bool add_extension(X509* certificate, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  const Extension extension(X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str()));
  return extension && X509_add_ext(certificate, extension.get(), -1) == 1;
}

bool set_serial(X509* certificate) {
  const Number number(BN_new());
  return number && BN_rand(number.get(), 127, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
         BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

bool set_name(X509* certificate, const std::string& host) {
  X509_NAME* name = X509_get_subject_name(certificate);
  const auto add = [&](const char* field, const char* text) {
    return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8,
                                      reinterpret_cast<const unsigned char*>(text), -1, -1, 0) == 1;
  };
  return add("O", test_organization) && add("CN", host.c_str()) &&
         X509_set_issuer_name(certificate, name) == 1;
}

bool set_time(X509* certificate) {
  // From an hour ago on: the client's clock may be late.
  return X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) != nullptr &&
         X509_gmtime_adj(X509_getm_notAfter(certificate), test_days * 86400L) != nullptr;
}

Result<Certificate> certify(EVP_PKEY* key, const std::string& host, const std::string& names) {
  Certificate certificate(X509_new());
  X509* it = certificate.get();
  // No CA: who trusts it trusts it for these names, and nothing that it could sign.
  const bool good =
      it != nullptr && X509_set_version(it, X509_VERSION_3) == 1 && set_serial(it) && set_time(it) &&
      set_name(it, host) && X509_set_pubkey(it, key) == 1 &&
      add_extension(it, NID_basic_constraints, "critical,CA:FALSE") &&
      add_extension(it, NID_ext_key_usage, "serverAuth") && add_extension(it, NID_subject_alt_name, names) &&
      add_extension(it, NID_subject_key_identifier, "hash") && X509_sign(it, key, EVP_sha256()) > 0;
  if (!good) return failed();
  return certificate;
}

Result<std::string> make(const std::string& host, const std::string& names) {
  JAIL_TRY(key_pem, read_all(STDIN_FILENO, max_key, "the key"));
  Key key;
  if (key_pem.empty()) {
    key.reset(EVP_EC_gen("P-256"));
    if (!key) return failed();
  } else {
    JAIL_TRY(read, read_key(key_pem));
    key = std::move(read);
  }
  JAIL_TRY(certificate, certify(key.get(), host, names));
  const Bio text(BIO_new(BIO_s_mem()));
  if (!text ||
      PEM_write_bio_PKCS8PrivateKey(text.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1 ||
      PEM_write_bio_X509(text.get(), certificate.get()) != 1)
    return failed();
  return contents(text.get());
}

int run(int argc, char** argv) {
  if (argc != 3) {
    fmt::print(stderr, "usage: jail-certificate HOST NAMES\n");
    return static_cast<int>(Exit::usage);
  }
  // No openssl.cnf: what it says (engines, providers) is none of ours.
  OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr);
  const auto made = make(argv[1], argv[2]);
  if (!made) {
    fmt::print(stderr, "{}\n", made.error().message);
    return static_cast<int>(made.error().exit);
  }
  return write_all(STDOUT_FILENO, *made, "standard output") ? 0 : static_cast<int>(Exit::io);
}

}  // namespace
}  // namespace jail::init

int main(int argc, char** argv) {
  try {
    return jail::init::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "internal error: {}\n", error.what());
    return static_cast<int>(jail::Exit::internal);
  }
}
