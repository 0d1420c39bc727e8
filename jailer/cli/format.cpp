#include "jailer/cli/format.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

namespace jail::cli {

std::string human_size(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  auto value = static_cast<double>(bytes);
  const char* unit = "";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB"}) {
    value /= 1024;
    unit = next;
    if (value < 1023.5) break;
  }
  return value < 9.95 ? fmt::format("{:.1f} {}", value, unit) : fmt::format("{:.0f} {}", value, unit);
}

char type_letter(EntryType type) {
  switch (type) {
    case EntryType::directory:
      return 'd';
    case EntryType::file:
      return '-';
    case EntryType::symlink:
      return 'l';
    case EntryType::character_device:
      return 'c';
    case EntryType::block_device:
      return 'b';
  }
  return '?';
}

void print_json(const nlohmann::json& value) {
  fmt::print("{}\n", value.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace jail::cli
