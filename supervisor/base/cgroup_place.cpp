#include "supervisor/base/cgroup_place.h"

#include <sstream>

namespace jail {
namespace {

/// mountinfo writes space, tab, newline and backslash as \ooo.
std::string unescape(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

}  // namespace

std::optional<CgroupPlace> find_cgroup_place(std::string_view mountinfo, std::string_view cgroup) {
  std::string own;
  std::istringstream groups{std::string(cgroup)};
  for (std::string line; std::getline(groups, line);)
    if (line.starts_with("0::/")) own = line.substr(3);
  if (own.empty() || own.starts_with("/..")) return std::nullopt;
  std::istringstream mounts{std::string(mountinfo)};
  for (std::string line; std::getline(mounts, line);) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos || line.compare(dash + 3, 8, "cgroup2 ") != 0) continue;
    std::istringstream words(line);
    std::string skip;
    std::string root;
    std::string point;
    words >> skip >> skip >> skip >> root >> point;
    root = unescape(root);
    point = unescape(point);
    if (!point.starts_with('/')) continue;  // no line of the kernel's
    if (root == "/") root.clear();
    if (own != root && !own.starts_with(root + "/")) continue;
    std::string below = own.substr(root.size());
    if (below == "/") below.clear();
    return CgroupPlace{point, point + below};
  }
  return std::nullopt;
}

}  // namespace jail
