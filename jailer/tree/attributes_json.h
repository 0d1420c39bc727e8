// Extended attributes in the JSON of locks: an object, names to values as attribute_text() writes them.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "jailer/tree/attributes.h"

namespace jail::tree {

[[nodiscard]] nlohmann::json attributes_json(const Attributes& attributes);

/// Nothing for anything that is not written for one attribute at least.
[[nodiscard]] std::optional<Attributes> attributes_from_json(const nlohmann::json& value);

}  // namespace jail::tree
