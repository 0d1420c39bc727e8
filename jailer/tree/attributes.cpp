#include "jailer/tree/attributes.h"

#include <linux/limits.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "jailer/digest/digest.h"
#include "jailer/tree/acl.h"
#include "jailer/tree/write_error.h"
#include "supervisor/base/quote.h"

namespace jail::tree {
namespace {

/// Nothing where the file has none of that name.
Result<std::optional<std::string>> value_of(int fd, const std::string& name, std::string_view shown) {
  std::string value(XATTR_SIZE_MAX, '\0');
  const ssize_t size = ::fgetxattr(fd, name.c_str(), value.data(), value.size());
  if (size < 0 && (errno == ENODATA || errno == ENOTSUP)) return std::nullopt;
  if (size < 0) return fail_errno(Exit::io, errno, "{}: cannot read the attribute {}", shown, escape(name));
  value.resize(static_cast<std::size_t>(size));
  return value;
}

bool is_label(std::string_view name) {
  return name == "security.selinux" || name == "security.ima" || name == "security.evm" ||
         name.starts_with("security.SMACK64");
}

/// XFS shows an ACL a second time, as it keeps it.
bool counts(std::string_view name) {
  if (name.starts_with("system.posix_acl_") || name.starts_with("user.")) return true;
  if (name.starts_with("trusted.")) return !name.starts_with("trusted.SGI_ACL_");
  return name.starts_with("security.") && !is_label(name);
}

struct Refusal {
  int error;
  Exit exit;
  const char* hint;
};
constexpr const char* elsewhere =
    "that file system has no such attributes: build on another (--home DIR, --into DIR), or take the name "
    "out "
    "of the manifest's xattrs";
constexpr const char* no_room =
    "free space there; or the file has more attributes than that file system keeps: take a name out of the "
    "manifest's xattrs";
constexpr Refusal refusals[] = {
    {ENOTSUP, Exit::cannot_create, elsewhere},
    {EPERM, Exit::permission,
     "security.* and trusted.* need capabilities that containers lack: run this outside of it, or take the "
     "name "
     "out of the manifest's xattrs"},
    {ENOSPC, Exit::cannot_create, no_room},
    {EDQUOT, Exit::cannot_create, no_room},
    {E2BIG, Exit::cannot_create, no_room},
    {EINVAL, Exit::cannot_create,
     "the kernel does not take the value that the source has: set it anew there, or take the name out of the "
     "manifest's xattrs"},
};

tl::unexpected<Error> refused(int error_number, const std::string& name, std::string_view shown) {
  for (const Refusal& refusal : refusals)
    if (refusal.error == error_number)
      return with_hint(
          fail_errno(refusal.exit, error_number, "{}: cannot set the attribute {}", shown, escape(name)),
          refusal.hint);
  return fail_write(error_number, "{}: cannot set the attribute {}", shown, escape(name));
}

/// As much of a value as a line can show.
std::string shortened(const std::string& value) {
  constexpr std::size_t most = 32;
  if (value.size() <= most) return attribute_text(value);
  return fmt::format("{}... ({} bytes)", attribute_text(value.substr(0, most)), value.size());
}

}  // namespace

Result<Attributes> read_attributes(int fd, const std::set<std::string>& names, std::uint32_t mode,
                                   std::string_view shown) {
  Attributes found;
  for (const std::string& name : names) {
    JAIL_TRY(value, value_of(fd, name, shown));
    if (value) found[name] = name == access_acl ? acl_with_mode(std::move(*value), mode) : std::move(*value);
  }
  return found;
}

Result<void> set_attributes(int fd, const Attributes& attributes, std::string_view shown) {
  for (const auto& [name, value] : attributes)
    if (::fsetxattr(fd, name.c_str(), value.data(), value.size(), 0) != 0) return refused(errno, name, shown);
  return {};
}

Result<std::vector<std::string>> attribute_names(const ListAttributes& list, std::string_view shown) {
  // As long as the kernel's list can be: a shorter buffer gets nothing of a long one.
  std::array<char, XATTR_LIST_MAX> names{};
  const ssize_t length = list(names.data(), names.size());
  if (length < 0 && errno != ENOTSUP)
    return fail_errno(Exit::io, errno, "{}: cannot list the attributes", shown);
  std::vector<std::string> found;
  for (ssize_t at = 0; at < length;) {
    const std::string_view name(names.data() + at);
    if (counts(name)) found.emplace_back(name);
    at += static_cast<ssize_t>(name.size()) + 1;
  }
  return found;
}

Result<std::vector<std::string>> attribute_differences(int fd, const Attributes& wanted,
                                                       std::string_view shown) {
  JAIL_TRY(names,
           attribute_names([fd](char* buffer, std::size_t size) { return ::flistxattr(fd, buffer, size); },
                           shown));
  std::vector<std::string> differences;
  for (const std::string& name : names)
    if (!wanted.contains(name)) differences.push_back(must_not_have(name));
  for (const auto& [name, value] : wanted) {
    JAIL_TRY(there, value_of(fd, name, shown));
    if (!there)
      differences.push_back(fmt::format("lacks the attribute {}", escape(name)));
    else if (*there != value)
      differences.push_back(fmt::format("has the attribute {} as {}, must have it as {}", escape(name),
                                        shortened(*there), shortened(value)));
  }
  return differences;
}

std::string must_not_have(const std::string& name) {
  return fmt::format("has the attribute {}, must not", escape(name));
}

std::string hash_of(const Attributes& attributes) {
  std::string text;
  for (const auto& [name, value] : attributes) text += name + '\0' + attribute_text(value) + '\0';
  return sha256_hex(text);
}

std::string attribute_text(std::string_view value) {
  static constexpr std::string_view digits = "0123456789abcdef";
  std::string text = "0x";
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    text += digits[byte >> 4U];
    text += digits[byte & 15U];
  }
  return text;
}

}  // namespace jail::tree
