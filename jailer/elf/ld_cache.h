// Reads /etc/ld.so.cache, in all three layouts: old ("ld.so-1.7.0"), new ("glibc-ld.so.cache1.1"), old with
// new behind it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "supervisor/base/error.h"

namespace jail::elf {

/// One line of `ldconfig -p`.
struct CacheEntry {
  std::string_view name;        ///< "libc.so.6"
  std::string_view path;        ///< "/lib/x86_64-linux-gnu/libc.so.6"
  std::int32_t flags = 0;       ///< 0x303: x86-64 (ldconfig.h of glibc)
  std::uint64_t hwcap = 0;      ///< 0: for every processor
  std::string_view hwcap_name;  ///< "x86-64-v3"; empty for baseline and legacy entries

  /// Of a glibc-hwcaps subdirectory: the low half of hwcap is the number of hwcap_name in the cache.
  [[nodiscard]] bool named() const { return (hwcap & named_hwcap) != 0 && (hwcap & ~named_bits) == 0; }
  /// The x86 ISA level that a named entry asks for besides: 0 for the baseline, 1 for x86-64-v2 and so on.
  [[nodiscard]] unsigned isa_level() const { return static_cast<unsigned>(hwcap >> 32) & 0x3ffU; }

  static constexpr std::uint64_t named_hwcap = std::uint64_t{1} << 62;
  static constexpr std::uint64_t named_bits = named_hwcap | (std::uint64_t{0x3ff} << 32) | 0xffffffff;
};

/// The cache, its names hashed. Move only; the views point into it.
class LdCache {
 public:
  /// `big_endian` is the byte order of the programs that would read it. Broken offsets, counts that the file
  /// cannot hold and a foreign byte order are errors; an entry whose strings lie outside is dropped, as ld.so
  /// would.
  [[nodiscard]] static Result<LdCache> parse(std::string bytes, bool big_endian = false);

  /// All entries for a name, in file order. Empty when there is none.
  [[nodiscard]] const std::vector<std::uint32_t>& find(std::string_view name) const;
  [[nodiscard]] const std::vector<CacheEntry>& entries() const { return entries_; }
  /// What is wrong with the table of glibc-hwcaps names, without which ld.so takes no entry that has one;
  /// empty: nothing.
  [[nodiscard]] const std::string& problem() const { return problem_; }

  LdCache() = default;
  LdCache(LdCache&&) noexcept = default;
  LdCache& operator=(LdCache&&) noexcept = default;
  LdCache(const LdCache&) = delete;
  LdCache& operator=(const LdCache&) = delete;

 private:
  struct Layout;
  std::vector<char> bytes_;  // not a string: a moved string may move its bytes
  std::vector<CacheEntry> entries_;
  std::unordered_map<std::string_view, std::vector<std::uint32_t>> names_;
  std::string problem_;
};

}  // namespace jail::elf
