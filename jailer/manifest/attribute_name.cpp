#include "jailer/manifest/attribute_name.h"

#include <linux/limits.h>

#include <algorithm>
#include <array>

namespace jail::manifest {

std::string attribute_problem(std::string_view name) {
  static constexpr std::array<std::string_view, 3> spaces = {"security.", "trusted.", "user."};
  const bool known = name == "system.posix_acl_access" ||
                     std::any_of(spaces.begin(), spaces.end(), [&](std::string_view space) {
                       return name.starts_with(space) && name.size() > space.size();
                     });
  if (!known)
    return "is no attribute that is copied: expected 'user.', 'trusted.' or 'security.' and a name, or "
           "'system.posix_acl_access'";
  if (name.size() > XATTR_NAME_MAX) return "is longer than 255 bytes";
  // tar ends a key with '=', and writes it with '%'.
  const auto good = [](char c) { return c > ' ' && c < 0x7f && c != '=' && c != '%'; };
  if (!std::all_of(name.begin(), name.end(), good))
    return "holds a blank, '=', '%' or something that is not ASCII";
  return {};
}

}  // namespace jail::manifest
