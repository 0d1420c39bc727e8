// Any bytes as ld.so.cache (both byte orders), as the strings of a loader, as a search path, as a script.
#include <cstdint>
#include <string>

#include "jailer/elf/ld_cache.h"
#include "jailer/elf/loader_policy.h"
#include "jailer/elf/script.h"
#include "jailer/elf/tokens.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace jail::elf;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  for (const bool big : {false, true}) {
    const auto cache = LdCache::parse(bytes, big);
    if (!cache) continue;
    for (const CacheEntry& entry : cache->entries()) {
      if (cache->find(entry.name).empty()) __builtin_trap();
    }
  }
  (void)read_policy({2, 1, 62}, bytes);
  (void)split_path(bytes, {"/origin", "lib", std::nullopt});
  const std::vector<std::string> trusted{"/lib/", "/usr/lib/"};
  (void)split_path(bytes, {"/lib/origin", "lib", std::nullopt, true, &trusted});
  (void)has_token(bytes);
  (void)parse_script(bytes);
  return 0;
}
