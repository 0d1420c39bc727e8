#include "jailer/cli/format.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

namespace jail::cli {

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
