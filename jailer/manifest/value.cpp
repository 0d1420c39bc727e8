#include "jailer/manifest/value.h"

#include <algorithm>
#include <array>
#include <utility>

namespace jail::manifest {

const Value* Value::find(std::string_view key) const {
  const Table* members = table();
  if (members == nullptr) return nullptr;
  const auto found =
      std::find_if(members->begin(), members->end(), [&](const Member& m) { return m.key == key; });
  return found == members->end() ? nullptr : &found->value;
}

Value* Value::find(std::string_view key) {
  return const_cast<Value*>(std::as_const(*this).find(key));
}

std::string Value::kind() const {
  if (const auto* other = std::get_if<Other>(&data)) return other->kind;
  static constexpr std::array<std::string_view, 6> names = {"",         "a boolean", "an integer",
                                                            "a string", "an array",  "a table"};
  return std::string(names.at(data.index()));
}

bool same(const Value& left, const Value& right) {
  if (left.data.index() != right.data.index()) return false;
  if (const auto* text = left.string()) return *text == *right.string();
  if (const auto* number = left.integer()) return *number == *right.integer();
  if (const auto* truth = left.boolean()) return *truth == *right.boolean();
  if (const auto* items = left.array())
    return std::equal(items->begin(), items->end(), right.array()->begin(), right.array()->end(), same);
  if (const auto* members = left.table())
    return members->size() == right.table()->size() &&
           std::all_of(members->begin(), members->end(), [&](const Member& member) {
             const Value* other = right.find(member.key);
             return other != nullptr && same(member.value, *other);
           });
  return false;
}

}  // namespace jail::manifest
