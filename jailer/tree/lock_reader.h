// The lock's text to a Lock: shape and values, no hashes (lock.cpp checks those).
#pragma once

#include <optional>
#include <string_view>

#include "jailer/tree/lock.h"

namespace jail::tree {

/// What to do about a lock that cannot be believed.
inline constexpr const char* new_lock =
    "a lock is never edited: change the manifest and build again (jail build --force makes a new lock at "
    "once)";

[[nodiscard]] Result<Lock> read_lock(std::string_view text, std::string_view name);

[[nodiscard]] const char* type_name(EntryType type);
[[nodiscard]] std::optional<EntryType> type_from_name(std::string_view name);

}  // namespace jail::tree
