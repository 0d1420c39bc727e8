#include <fmt/chrono.h>

#include "jailer/tree/hash.h"
#include "jailer/views/sbom.h"

namespace jail::views {

Result<std::string> uuid_of(const Lock& lock, std::string_view purpose) {
  std::string said;
  const auto say = [&said](std::string_view field) { said.append(field).push_back('\0'); };
  for (const std::string_view field : {purpose, std::string_view(lock.name), std::string_view(lock.tree_hash),
                                       std::string_view(lock.distribution)})
    say(field);
  for (const LockEntry& entry : lock.entries)
    for (const std::string* field : {&entry.package, &entry.package_version, &entry.package_architecture})
      say(*field);
  std::string hex = sha256_hex(said);
  hex[12] = '8';  // version: of one's own making
  constexpr std::string_view variant = "89ab";
  hex[16] = variant[static_cast<unsigned char>(hex[16]) % variant.size()];
  return fmt::format("{}-{}-{}-{}-{}", hex.substr(0, 8), hex.substr(8, 4), hex.substr(12, 4),
                     hex.substr(16, 4), hex.substr(20, 12));
}

std::string utc(std::time_t time) {
  std::tm parts{};
  ::gmtime_r(&time, &parts);
  return fmt::format("{:%FT%TZ}", parts);
}

}  // namespace jail::views
