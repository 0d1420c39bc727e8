// Writing /etc/ld.so.cache.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace jail {

struct CacheEntry {
  std::string name;  ///< "libfoo.so.2"
  std::string path;  ///< "/usr/local/lib/libfoo.so.2"
  std::uint32_t flags = 0;
  std::string hwcap_name{};  ///< "x86-64-v3": of a glibc-hwcaps subdirectory
  std::uint64_t hwcap = 0;   ///< the processors that it is for, without the number of that name; 0: all
};

/// The bytes of an ld.so.cache with `entries`, in any order. Deterministic.
[[nodiscard]] std::string loader_cache_bytes(std::vector<CacheEntry> entries, bool big_endian = false);

}  // namespace jail
