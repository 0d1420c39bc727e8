// Extended attributes of the files of a tree. A tree has those that its manifest asked for, as its lock lists
// them, and no others: one that nobody listed may grant something.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/error.h"

namespace jail {

/// By name; values are any bytes.
using Attributes = std::map<std::string, std::string>;

}  // namespace jail

namespace jail::tree {

/// Those of `names` that the open file has; its ACL as it is once the file has `mode`. `shown` is for
/// messages, here and below.
[[nodiscard]] Result<Attributes> read_attributes(int fd, const std::set<std::string>& names,
                                                 std::uint32_t mode, std::string_view shown);

/// Gives the open file `attributes`. To be called last: a chown and a write take capabilities away, a chmod
/// changes an ACL.
[[nodiscard]] Result<void> set_attributes(int fd, const Attributes& attributes, std::string_view shown);

/// flistxattr() or llistxattr() of one inode.
using ListAttributes = std::function<ssize_t(char* names, std::size_t size)>;

/// The attributes of an inode that only a lock may give it: all but the labels of the host's security
/// modules, which come and go with the host.
[[nodiscard]] Result<std::vector<std::string>> attribute_names(const ListAttributes& list,
                                                               std::string_view shown);

/// How the attributes of the open file differ from `wanted`, each difference in words.
[[nodiscard]] Result<std::vector<std::string>> attribute_differences(int fd, const Attributes& wanted,
                                                                     std::string_view shown);

/// "has the attribute user.x, must not": of one that attribute_names() gave.
[[nodiscard]] std::string must_not_have(const std::string& name);

/// Stands for names and values, in the names of objects. Not for none.
[[nodiscard]] std::string hash_of(const Attributes& attributes);

/// A value as locks write it: 0x and lower-case hexadecimal digits.
[[nodiscard]] std::string attribute_text(std::string_view value);

}  // namespace jail::tree
