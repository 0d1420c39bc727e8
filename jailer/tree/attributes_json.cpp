#include "jailer/tree/attributes_json.h"

#include <linux/limits.h>

#include <nlohmann/json.hpp>

#include "jailer/manifest/attribute_name.h"

namespace jail::tree {
namespace {

std::optional<std::string> value_from_text(std::string_view text) {
  if (!text.starts_with("0x") || text.size() % 2 != 0 || text.size() / 2 - 1 > XATTR_SIZE_MAX)
    return std::nullopt;
  text.remove_prefix(2);
  static constexpr std::string_view digits = "0123456789abcdef";
  std::string value;
  for (std::size_t at = 0; at < text.size(); at += 2) {
    const std::size_t high = digits.find(text[at]);
    const std::size_t low = digits.find(text[at + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) return std::nullopt;
    value += static_cast<char>(high * 16 + low);
  }
  return value;
}

}  // namespace

nlohmann::json attributes_json(const Attributes& attributes) {
  nlohmann::json object = nlohmann::json::object();
  for (const auto& [name, value] : attributes) object[name] = attribute_text(value);
  return object;
}

std::optional<Attributes> attributes_from_json(const nlohmann::json& value) {
  if (!value.is_object() || value.empty()) return std::nullopt;
  Attributes attributes;
  for (const auto& [name, text] : value.items()) {
    if (!manifest::attribute_problem(name).empty() || !text.is_string()) return std::nullopt;
    auto bytes = value_from_text(text.get_ref<const std::string&>());
    if (!bytes) return std::nullopt;
    attributes[name] = std::move(*bytes);
  }
  return attributes;
}

}  // namespace jail::tree
