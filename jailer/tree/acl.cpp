#include "jailer/tree/acl.h"

#include <endian.h>
#include <fmt/format.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>

#include <cstring>

namespace jail::tree {
namespace {

/// Which bits of `mode` an entry has, shifted; none: no business of the mode.
int shift_of(std::uint16_t tag, bool masked) {
  switch (tag) {
    case ACL_USER_OBJ:
      return 6;
    case ACL_GROUP_OBJ:
      return masked ? -1 : 3;
    case ACL_MASK:
      return 3;
    case ACL_OTHER:
      return 0;
    default:
      return -1;
  }
}

/// Calls `visit` with each entry of the ACL, which it may change; does nothing with what is no ACL.
template <class Visit>
void each_entry(std::string& value, const Visit& visit) {
  posix_acl_xattr_header head{};
  posix_acl_xattr_entry entry{};
  if (value.size() < sizeof head || (value.size() - sizeof head) % sizeof entry != 0) return;
  std::memcpy(&head, value.data(), sizeof head);
  if (le32toh(head.a_version) != POSIX_ACL_XATTR_VERSION) return;
  for (std::size_t at = sizeof head; at < value.size(); at += sizeof entry) {
    std::memcpy(&entry, value.data() + at, sizeof entry);
    visit(entry);
    std::memcpy(value.data() + at, &entry, sizeof entry);
  }
}

struct Word {
  std::uint16_t tag;
  const char* word;
  bool named;
};
constexpr Word words[] = {{ACL_USER_OBJ, "user", false},   {ACL_USER, "user", true},
                          {ACL_GROUP_OBJ, "group", false}, {ACL_GROUP, "group", true},
                          {ACL_MASK, "mask", false},       {ACL_OTHER, "other", false}};

}  // namespace

std::string acl_with_mode(std::string value, std::uint32_t mode) {
  bool masked = false;
  each_entry(value, [&](const auto& entry) { masked = masked || le16toh(entry.e_tag) == ACL_MASK; });
  each_entry(value, [&](auto& entry) {
    const int shift = shift_of(le16toh(entry.e_tag), masked);
    if (shift >= 0) entry.e_perm = htole16(static_cast<std::uint16_t>((mode >> shift) & 7U));
  });
  return value;
}

std::string acl_text(std::string value) {
  std::string text;
  each_entry(value, [&](const auto& entry) {
    for (const Word& word : words) {
      if (word.tag != le16toh(entry.e_tag)) continue;
      const unsigned perm = le16toh(entry.e_perm);
      text += fmt::format("{}{}:{}:{}{}{}", text.empty() ? "" : ",", word.word,
                          word.named ? std::to_string(le32toh(entry.e_id)) : "",
                          (perm & ACL_READ) != 0 ? 'r' : '-', (perm & ACL_WRITE) != 0 ? 'w' : '-',
                          (perm & ACL_EXECUTE) != 0 ? 'x' : '-');
    }
  });
  return text;
}

}  // namespace jail::tree
