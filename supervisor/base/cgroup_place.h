// Where a process stands among the control groups.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace jail {

/// A mount of cgroup v2 and the place of a process in it.
struct CgroupPlace {
  std::string mount;  ///< "/sys/fs/cgroup"
  std::string own;    ///< the directory of the process's cgroup, absolute
};
/// From the texts of /proc/self/mountinfo and /proc/PID/cgroup. Nothing where cgroup v2 is not mounted or the
/// cgroup does not show in the mount.
[[nodiscard]] std::optional<CgroupPlace> find_cgroup_place(std::string_view mountinfo,
                                                           std::string_view cgroup);

}  // namespace jail
