// hash_file(): all of a file, and no more than one byte behind what it may have.
#include <sys/mman.h>
#include <unistd.h>

#include "catch.h"
#include "jailer/tree/hash.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/io.h"

using namespace jail;
using namespace jail::tree;

TEST_CASE("A file is hashed whole, and one that is longer than it may be has another hash") {
  const UniqueFd fd(::memfd_create("hash", MFD_CLOEXEC));
  const std::string bytes(chunk_size * 2 + 7, 'x');
  REQUIRE(write_all(fd.get(), bytes, "memfd"));
  Sha256 hash;
  std::string buffer;
  Progress progress;
  CHECK(hash_file(fd.get(), hash, buffer, "memfd", {bytes.size(), &progress}).value() == sha256_hex(bytes));
  CHECK(progress.done == bytes.size());
  CHECK(hash_file(fd.get(), hash, buffer, "memfd").value() == sha256_hex(bytes));
  for (const std::size_t most :
       {std::size_t{0}, std::size_t{4}, chunk_size - 1, chunk_size, chunk_size + 1}) {
    progress.done = 0;
    const auto cut = hash_file(fd.get(), hash, buffer, "memfd", {most, &progress});
    CHECK(cut.value() == sha256_hex(bytes.substr(0, most + 1)));
    CHECK(progress.done == most + 1);
  }
  // As long as an endless one: nothing is read behind the first byte too many.
  REQUIRE(::ftruncate(fd.get(), off_t{1} << 45) == 0);
  CHECK(hash_file(fd.get(), hash, buffer, "memfd", {bytes.size(), nullptr}).value() != sha256_hex(bytes));
}

TEST_CASE("Digests are those that the standards give for their examples") {  // FIPS 180-4, RFC 3174
  CHECK(sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha1_hex("abc") == "a9993e364706816aba3e25717850c26c9cd0d89d");
  Sha256 hash;
  hash.update("a");
  (void)hash.hex();
  hash.update("ab");
  hash.update("c");
  CHECK(hash.hex() == sha256_hex("abc"));
}
