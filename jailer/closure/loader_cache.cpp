// The tree's own /etc/ld.so.cache, for libraries that ld.so finds through its cache alone (/usr/local/lib and
// other directories of ld.so.conf). We write it ourselves: ldconfig would be a program to run, and its file
// is not reproducible. The format is glibc's dl-cache.h, the new one:
//
//   "glibc-ld.so.cache" "1.1", u32 entries, u32 bytes of strings, u8 flags (2: little-endian, 3: big-endian),
//   3 bytes, u32 offset of the extensions (0: none), 12 bytes
//
//   entries x { i32 flags, u32 name, u32 path, u32 0, u64 hwcap }, sorted downwards by ld.so's own
//   comparison; of one name those with a glibc-hwcaps name come first
//
//   NUL-terminated strings; offsets count from the start of the file
//
//   where an entry has a glibc-hwcaps name, at a multiple of 4: u32 magic, u32 1 section, { u32 tag, u32 0,
//   u32 offset, u32 bytes }; u32 names, sorted by strcmp: their numbers are the low halves of such hwcaps
#include "jailer/closure/loader_cache.h"

#include <algorithm>
#include <bit>
#include <map>

#include "jailer/closure/work.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// The run of digits at `text`, in an int that overflows as glibc's does: ld.so searches by that order.
std::int32_t take_number(const char*& text) {
  std::uint32_t value = 0;
  while (is_digit(*text)) value = value * 10 + static_cast<std::uint32_t>(*text++ - '0');
  return static_cast<std::int32_t>(value);
}

/// _dl_cache_libcmp() of glibc: runs of digits compare as numbers, and are greater than anything else.
int compare_names(const char* a, const char* b) {
  while (*a != '\0') {
    if (is_digit(*a)) {
      if (!is_digit(*b)) return 1;
      const std::int32_t left = take_number(a), right = take_number(b);
      if (left != right) return left > right ? 1 : -1;
    } else if (is_digit(*b)) {
      return -1;
    } else if (*a != *b) {
      return *a - *b;
    } else {
      ++a;
      ++b;
    }
  }
  return *a - *b;
}

/// As ldconfig sorts them; ld.so takes the first of a name that its processor can use.
bool comes_before(const CacheEntry& a, const CacheEntry& b) {
  if (const int order = compare_names(a.name.c_str(), b.name.c_str()); order != 0) return order > 0;
  if (a.flags != b.flags) return a.flags > b.flags;
  if (a.hwcap_name.empty() != b.hwcap_name.empty()) return b.hwcap_name.empty();
  if (a.hwcap_name != b.hwcap_name) return a.hwcap_name < b.hwcap_name;
  const int bits = std::popcount(a.hwcap) - std::popcount(b.hwcap);
  if (bits != 0) return bits > 0;
  return a.hwcap != b.hwcap ? a.hwcap > b.hwcap : a.path < b.path;
}

/// Bytes in the byte order of the programs that read the cache, and the strings that they point to.
class Writer {
 public:
  explicit Writer(bool big) : big_(big) {}
  void number(std::uint64_t value, unsigned size = 4) {
    for (unsigned i = 0; i < size; ++i)
      bytes.push_back(static_cast<char>((value >> (8 * (big_ ? size - 1 - i : i))) & 0xffU));
  }
  void align() { bytes.resize((bytes.size() + 3) / 4 * 4); }
  std::string bytes;

 private:
  bool big_;
};

/// Strings behind the entries, with where each begins in the file.
struct Strings {
  std::size_t base;
  std::string bytes;
  std::size_t add(const std::string& text) {
    const std::size_t at = base + bytes.size();
    bytes.append(text).push_back('\0');
    return at;
  }
};

void append_names(Writer& out, const std::vector<std::size_t>& names) {
  constexpr std::uint32_t magic = 0xEAA42174, names_tag = 1;
  constexpr std::size_t directory = 24;
  const std::size_t start = out.bytes.size();
  for (const std::size_t value : {std::size_t{magic}, std::size_t{1}, std::size_t{names_tag}, std::size_t{0},
                                  start + directory, names.size() * 4})
    out.number(value);
  for (const std::size_t name : names) out.number(name);
}

}  // namespace

std::string loader_cache_bytes(std::vector<CacheEntry> entries, bool big_endian) {
  constexpr std::size_t header = 48, entry_size = 24;
  std::sort(entries.begin(), entries.end(), comes_before);
  std::map<std::string, std::size_t> hwcaps;  // glibc-hwcaps names, each with its number
  for (const CacheEntry& entry : entries)
    if (!entry.hwcap_name.empty()) hwcaps.emplace(entry.hwcap_name, 0);
  Strings strings{header + entries.size() * entry_size, {}};
  std::vector<std::size_t> names;
  for (auto& [name, number] : hwcaps) {
    number = names.size();
    names.push_back(strings.add(name));
  }
  Writer table(big_endian);
  for (const CacheEntry& entry : entries) {
    table.number(entry.flags);
    table.number(strings.add(entry.name));
    table.number(strings.add(entry.path));
    table.number(0);
    table.number(entry.hwcap | (entry.hwcap_name.empty() ? 0 : hwcaps[entry.hwcap_name]), 8);
  }
  const std::size_t end = (strings.base + strings.bytes.size() + 3) / 4 * 4;
  Writer out(big_endian);
  out.bytes = "glibc-ld.so.cache1.1";
  out.number(entries.size());
  out.number(strings.bytes.size());
  out.bytes += std::string(1, big_endian ? '\3' : '\2') + std::string(3, '\0');
  out.number(names.empty() ? 0 : end);
  out.bytes += std::string(12, '\0') + table.bytes + strings.bytes;
  if (names.empty()) return out.bytes;
  out.align();
  append_names(out, names);
  return out.bytes;
}

void plan_loader_cache(Work& work) {
  std::vector<CacheEntry> entries;
  std::vector<Reason> why;
  bool big_endian = false;
  for (const auto& [key, library] : work.cached) {
    const std::string& name = key.first;
    big_endian = library.big_endian;
    if (library.flags == 0) {
      work.out.problem("tree.binaries",
                       fmt::format("{}: found through ld.so.cache, which cannot be written for its "
                                   "architecture",
                                   quote(library.path)));
      continue;
    }
    entries.push_back({name, library.path, static_cast<std::uint32_t>(library.flags), library.line.hwcap_name,
                       library.line.hwcap});
    if (why.empty() || why.back().detail != name) why.push_back({"loader", library.by, name});
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
