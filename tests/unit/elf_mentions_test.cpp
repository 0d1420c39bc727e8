// Strings that look like libraries: which do, where they are looked for, and that nothing hostile harms.
#include <elf.h>

#include <cstring>

#include "catch.h"
#include "jailer/elf/mentions.h"

using namespace jail::elf;

namespace {

/// A 64-bit file with a segment of headers, one of `data` with these flags, and one of code.
std::string file_with(const std::string& data, std::uint32_t flags = PF_R) {
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 3;
  Elf64_Phdr segments[3] = {};
  const std::uint64_t start = sizeof header + sizeof segments;
  segments[0] = {PT_LOAD, PF_R, 0, 0, 0, start, start, 1};
  segments[1] = {PT_LOAD, PF_R | PF_X, start, 0x100000, 0, 0, 0, 1};
  segments[2] = {PT_LOAD, flags, start, 0x200000, 0, data.size(), data.size(), 1};
  return std::string(reinterpret_cast<const char*>(&header), sizeof header) +
         std::string(reinterpret_cast<const char*>(segments), sizeof segments) + data;
}

std::vector<std::string> mentions(const std::string& bytes) {
  const MemorySource source(bytes);
  return library_mentions(source);
}

std::string strings(const std::vector<std::string>& all) {
  std::string text(1, '\0');
  for (const std::string& one : all) text += one + '\0';
  return text;
}

using Words = std::vector<std::string>;

}  // namespace

TEST_CASE("whole strings that are a library's name or path") {
  const std::string data =
      strings({"libidn2.so.0", "libx.so", "/usr/lib/y.so.1.2", "/opt/plug-in.so", "lib.so", "x.so",
               "see libz.so.1", "lib%s.so", "/etc/ld.so.cache", "libq.sox", "libq.so.", "dir/libr.so",
               "libidn2.so.0", "a\nlibn.so", ".so", "/.so", "libc++.so.1"});
  CHECK(mentions(file_with(data)) ==
        Words{"/opt/plug-in.so", "/usr/lib/y.so.1.2", "libc++.so.1", "libidn2.so.0", "libx.so"});
  CHECK(mentions(file_with(data, PF_R | PF_W)).empty());
}

TEST_CASE("strings are found across the pieces in which a file is read") {
  for (const std::size_t before : {(1U << 20U) - 1, (1U << 20U) - 6, (1U << 20U) - 13, (2U << 20U) - 1030}) {
    CAPTURE(before);
    CHECK(mentions(file_with(std::string(before, '\0') + "libfar.so.3" + std::string(5000, '\0'))) ==
          Words{"libfar.so.3"});
  }
}

TEST_CASE("a bounded number, and nothing for what is no ELF") {
  Words many;
  for (int i = 0; i < 1000; ++i) many.push_back("lib" + std::to_string(i) + ".so");
  CHECK(mentions(file_with(strings(many))).size() == 256);
  CHECK(mentions("").empty());
  CHECK(mentions("#!/bin/sh\nlibx.so").empty());
  CHECK(mentions(file_with(strings({std::string("lib") + std::string(2000, 'x') + ".so"}))).empty());
  const std::string whole = file_with(strings({"libx.so"}));
  for (std::size_t size = 0; size < whole.size(); ++size) (void)mentions(whole.substr(0, size));
  for (std::size_t at = 0; at < 240; ++at) {
    std::string other = whole;
    other[at] = static_cast<char>(0xff);
    (void)mentions(other);
  }
}
