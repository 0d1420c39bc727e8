// The tree's own /etc/ld.so.cache, for libraries that ld.so finds through its cache alone (/usr/local/lib and
// other directories of ld.so.conf). We write it ourselves: ldconfig would be a program to run, and its file
// is not reproducible. The format is glibc's dl-cache.h, the new one without extensions:
//
//   "glibc-ld.so.cache" "1.1", u32 entries, u32 bytes of strings, u8 flags (2: little-endian, 3: big-endian),
//   3 bytes, u32 no extension, 12 bytes entries x { i32 flags, u32 name, u32 path, u32 0, u64 0 }, sorted
//   downwards by ld.so's own comparison strings, NUL-terminated; offsets count from the start of the file
#include "jailer/closure/loader_cache.h"

#include <algorithm>
#include <cstring>

#include "jailer/closure/work.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

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

/// Numbers of the cache, in the byte order of the programs that read it.
struct Writer {
  bool big;
  void append(std::string& bytes, std::uint64_t value) const {
    constexpr unsigned size = 4;
    for (unsigned i = 0; i < size; ++i)
      bytes.push_back(static_cast<char>((value >> (8 * (big ? size - 1 - i : i))) & 0xffU));
  }
};

}  // namespace

std::string loader_cache_bytes(std::vector<CacheEntry> entries, bool big_endian) {
  const Writer writer{big_endian};
  constexpr std::size_t header = 48, entry_size = 24;
  std::sort(entries.begin(), entries.end(), [](const CacheEntry& a, const CacheEntry& b) {
    const int order = compare_names(a.name.c_str(), b.name.c_str());
    return order != 0 ? order > 0 : a.path < b.path;
  });
  std::string table, strings;
  const std::size_t base = header + entries.size() * entry_size;
  for (const CacheEntry& entry : entries) {
    writer.append(table, entry.flags);
    writer.append(table, base + strings.size());
    strings.append(entry.name).push_back('\0');
    writer.append(table, base + strings.size());
    strings.append(entry.path).push_back('\0');
    table.append(12, '\0');
  }
  std::string bytes = "glibc-ld.so.cache1.1";
  writer.append(bytes, entries.size());
  writer.append(bytes, strings.size());
  bytes.push_back(big_endian ? '\3' : '\2');
  bytes.append(3, '\0');
  writer.append(bytes, 0);
  bytes.append(12, '\0');
  return bytes + table + strings;
}

void plan_loader_cache(Work& work) {
  std::vector<CacheEntry> entries;
  std::vector<Reason> why;
  bool big_endian = false;
  for (const auto& [name, library] : work.cached) {
    big_endian = library.big_endian;
    if (library.flags == 0) {
      work.out.problem("tree.binaries",
                       fmt::format("{}: found through ld.so.cache, which cannot be written for its "
                                   "architecture",
                                   quote(library.path)));
      continue;
    }
    entries.push_back({name, library.path, static_cast<std::uint32_t>(library.flags)});
    why.push_back({"loader", library.by, name});
  }
  if (entries.empty()) return;
  Entry entry;
  entry.path = "/etc/ld.so.cache";
  entry.mode = 0644;
  entry.content = loader_cache_bytes(std::move(entries), big_endian);
  entry.why = std::move(why);
  work.out.put(std::move(entry), "tree.binaries");
}

}  // namespace jail
