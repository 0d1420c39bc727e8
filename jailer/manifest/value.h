// The small value tree that everything here works on: what a TOML file said, with the place of every value.
// Files are merged and bound as such trees; toml++ is seen by toml_file.cpp alone, because its nodes lose
// their place when copied.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "jailer/manifest/model.h"

namespace jail::manifest {

struct Member;

struct Value {
  using Array = std::vector<Value>;
  using Table = std::vector<Member>;  ///< in the order of the file
  struct Other {
    std::string kind;  ///< "a float", "a date": nothing in a manifest is one
  };

  std::variant<Other, bool, std::int64_t, std::string, Array, Table> data;
  Origin origin;

  [[nodiscard]] const std::string* string() const { return std::get_if<std::string>(&data); }
  [[nodiscard]] const std::int64_t* integer() const { return std::get_if<std::int64_t>(&data); }
  [[nodiscard]] const bool* boolean() const { return std::get_if<bool>(&data); }
  [[nodiscard]] const Array* array() const { return std::get_if<Array>(&data); }
  [[nodiscard]] const Table* table() const { return std::get_if<Table>(&data); }
  [[nodiscard]] Array* array() { return std::get_if<Array>(&data); }
  [[nodiscard]] Table* table() { return std::get_if<Table>(&data); }

  /// The value of `key` in a table; null when this is no table or has no such key.
  [[nodiscard]] const Value* find(std::string_view key) const;
  [[nodiscard]] Value* find(std::string_view key);

  /// "a string", "an array" ...: for messages.
  [[nodiscard]] std::string kind() const;
};

struct Member {
  std::string key;
  Origin key_origin;
  Value value;
};

/// Whether two values say the same, wherever they stand.
[[nodiscard]] bool same(const Value& left, const Value& right);

}  // namespace jail::manifest
