// What Prepared holds: the launch spec laid out as the flat tables that after_fork.cpp walks through. Private
// to this room.
#pragma once

#include <linux/filter.h>

#include <deque>
#include <string>
#include <vector>

#include "supervisor/base/fd.h"
#include "supervisor/sandbox/after_fork.h"
#include "supervisor/sandbox/sandbox.h"

namespace jail::sandbox {

/// Strings and lists that tables point into: nothing moves once it is in here.
class Texts {
 public:
  /// A copy of `text` that lives as long as this.
  const char* keep(std::string text) { return strings_.emplace_back(std::move(text)).c_str(); }

  /// The directories above `path`, without those up to `base`, outermost first, null behind:
  /// ("run/a/b/c", "run") gives run/a, run/a/b.
  const char* const* parents(const std::string& path, const std::string& base);

  /// A list of options with its end mark.
  const FsOption* keep(std::vector<FsOption> options);

 private:
  std::deque<std::string> strings_;
  std::deque<std::vector<const char*>> lists_;
  std::deque<std::vector<FsOption>> options_;
};

struct Prepared::Impl {
  LaunchSpec spec;
  std::vector<std::string> not_enforced;
  Texts texts;

  UniqueFd tree;
  UniqueFd null;  ///< see open_private_null()
  std::vector<sock_filter> filter;
  std::vector<MountStep> mounts;
  std::vector<DeviceStep> devices;
  std::vector<RlimitStep> rlimits;
  std::vector<PortRule> ports;
  std::vector<gid_t> groups;
  std::vector<const char*> argv;  ///< null behind
  std::vector<const char*> env;   ///< without a null behind
  std::vector<char> daemon_stack;

  Plan plan;  ///< all but what LaunchInputs add
};

/// A bind of `source` at `target` (absolute, in the jail), made to fit what lies above it in `mounts`.
MountStep bind_step(Texts& texts, const std::vector<Mount>& mounts, const std::string& source,
                    const std::string& target);

}  // namespace jail::sandbox
