// The value of system.posix_acl_access, of which a file's mode is a part (acl(5)).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace jail::tree {

inline constexpr const char* access_acl = "system.posix_acl_access";

/// The ACL as chmod(2) leaves it when it sets `mode`: the users and groups that it names get no more than the
/// mode gives the group. What is no ACL comes back as it is.
[[nodiscard]] std::string acl_with_mode(std::string value, std::uint32_t mode);

/// acl(5)'s short text with numbers for names: "user::rwx,user:33:r-x,group::r-x,mask::r-x,other::---". Empty
/// for what is no ACL.
[[nodiscard]] std::string acl_text(std::string value);

}  // namespace jail::tree
