// The tree's own /etc/ld.so.cache, for libraries that ld.so finds through its cache alone (/usr/local/lib and
// other directories of ld.so.conf). We write it ourselves: ldconfig would be a program to run, and its file
// is not reproducible. The format is glibc's dl-cache.h, the new one without extensions:
//
//   "glibc-ld.so.cache" "1.1", u32 entries, u32 bytes of strings, u8 flags (2: little-endian), 3 bytes, u32
//   no extension, 12 bytes entries x { i32 flags, u32 name, u32 path, u32 0, u64 0 }, sorted downwards by
//   ld.so's own comparison strings, NUL-terminated; offsets count from the start of the file
#include "jailer/closure/loader_cache.h"

#include <algorithm>
#include <cstring>

#include "jailer/closure/work.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

/// What ldconfig writes as flags for an architecture (ldconfig.h of glibc), by the ELF header.
struct ArchFlags {
  std::uint16_t machine;
  bool is_64;
  std::uint32_t flags;
};
constexpr ArchFlags arch_flags[] = {
    {62, true, 0x0303},   // x86-64
    {62, false, 0x0803},  // x32
    {3, false, 0x0003},   // i386
    {183, true, 0x0a03},  // aarch64
    {243, true, 0x1003},  // riscv64, double floats
    {21, true, 0x0503},   // ppc64
};

std::uint32_t flags_of(std::string_view head) {
  if (head.size() < 20) return 0;
  const auto byte = [&](std::size_t at) {
    return static_cast<unsigned>(static_cast<unsigned char>(head[at]));
  };
  const unsigned machine = byte(18) | (byte(19) << 8U);  // the architectures of the table are little-endian
  for (const ArchFlags& arch : arch_flags) {
    if (arch.machine == machine && arch.is_64 == (byte(4) == 2)) return arch.flags;
  }
  return 0;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// _dl_cache_libcmp() of glibc: runs of digits compare as numbers, and are greater than anything else.
int compare_names(const char* a, const char* b) {
  while (*a != '\0') {
    if (is_digit(*a)) {
      if (!is_digit(*b)) return 1;
      unsigned long long left = 0, right = 0;
      while (is_digit(*a)) left = left * 10 + static_cast<unsigned>(*a++ - '0');
      while (is_digit(*b)) right = right * 10 + static_cast<unsigned>(*b++ - '0');
      if (left != right) return left > right ? 1 : -1;
    } else if (is_digit(*b)) {
      return -1;
    } else if (*a != *b) {
      return static_cast<unsigned char>(*a) > static_cast<unsigned char>(*b) ? 1 : -1;
    } else {
      ++a;
      ++b;
    }
  }
  return *b == '\0' ? 0 : -1;
}

void append_number(std::string& bytes, std::uint64_t value, unsigned size) {
  for (unsigned i = 0; i < size; ++i) bytes.push_back(static_cast<char>((value >> (8 * i)) & 0xffU));
}

}  // namespace

std::string loader_cache_bytes(std::vector<CacheEntry> entries) {
  constexpr std::size_t header = 48, entry_size = 24;
  std::sort(entries.begin(), entries.end(), [](const CacheEntry& a, const CacheEntry& b) {
    const int order = compare_names(a.name.c_str(), b.name.c_str());
    return order != 0 ? order > 0 : a.path < b.path;
  });
  std::string table, strings;
  const std::size_t base = header + entries.size() * entry_size;
  for (const CacheEntry& entry : entries) {
    append_number(table, entry.flags, 4);
    append_number(table, base + strings.size(), 4);
    strings.append(entry.name).push_back('\0');
    append_number(table, base + strings.size(), 4);
    strings.append(entry.path).push_back('\0');
    table.append(12, '\0');
  }
  std::string bytes = "glibc-ld.so.cache1.1";
  append_number(bytes, entries.size(), 4);
  append_number(bytes, strings.size(), 4);
  append_number(bytes, 2, 4);
  append_number(bytes, 0, 4);
  bytes.append(12, '\0');
  return bytes + table + strings;
}

void plan_loader_cache(Work& work) {
  std::vector<CacheEntry> entries;
  std::vector<Reason> why;
  for (const auto& [name, library] : work.cached) {
    const std::uint32_t flags = flags_of(work.source.head(library.path, 20));
    if (flags == 0) {
      work.out.problem("tree.binaries",
                       fmt::format("{}: found through ld.so.cache, which cannot be written for its "
                                   "architecture",
                                   quote(library.path)));
      continue;
    }
    entries.push_back({name, library.path, flags});
    why.push_back({"loader", library.by, name});
  }
  if (entries.empty()) return;
  Entry entry;
  entry.path = "/etc/ld.so.cache";
  entry.mode = 0644;
  entry.content = loader_cache_bytes(std::move(entries));
  entry.why = std::move(why);
  work.out.put(std::move(entry), "tree.binaries");
}

}  // namespace jail
