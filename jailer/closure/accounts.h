// What closure/ and policy/ share of accounts: names to numbers, and the tree's own passwd and group.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "jailer/closure/planner.h"
#include "jailer/closure/source_root.h"

namespace jail {

/// As read_accounts(path), over a root that is open already.
[[nodiscard]] Result<Accounts> read_accounts(const SourceRoot& root);

/// The passwd file with `users` and no others: sorted by number, no password that anything could match.
[[nodiscard]] std::string passwd_text(std::vector<UserEntry> users);

/// The group file with `groups` and, as their members, only `users`.
[[nodiscard]] std::string group_text(std::vector<GroupEntry> groups, const std::vector<UserEntry>& users);

/// Names to numbers. "root" is 0 also in a root that has no account files.
[[nodiscard]] std::optional<std::uint32_t> user_id(const Accounts& accounts, std::string_view name);
[[nodiscard]] std::optional<std::uint32_t> primary_group(const Accounts& accounts, std::string_view user);
[[nodiscard]] std::optional<std::uint32_t> group_id(const Accounts& accounts, std::string_view name);

/// The error for a name that the source root does not know, with how to make it; `packages` are the
/// manifest's.
[[nodiscard]] Error no_such_user(std::string_view name, const std::vector<std::string>& packages);
[[nodiscard]] Error no_such_group(std::string_view name, const std::vector<std::string>& packages);

}  // namespace jail
