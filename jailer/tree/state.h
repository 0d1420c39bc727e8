// The state directory of an instance: made, checked and held open. Nobody but root may be able to replace a
// directory on the way to it, else all safety below is sand (TRAPS.md 12, 53).
#pragma once

#include <string>

#include "jailer/tree/root_dir.h"
#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/spec/instance.h"

namespace jail::tree {

/// Opens `path`, a directory that only root can write, as can all its parents (a sticky directory of root's,
/// as /tmp, may be a parent). Where `make`, missing ones are made, 0755. Exit::config names the first that is
/// not safe, `purpose` says for what.
[[nodiscard]] Result<UniqueFd> open_safe(const std::string& path, bool make,
                                         const char* purpose = "place for jails");

/// Exit::config unless the file `path` and all directories above it are root's alone to write in that sense.
[[nodiscard]] Result<void> demand_safe_file(const std::string& path, const char* purpose);

/// The root that sources are read from, safe in that sense. `path` may be relative.
[[nodiscard]] Result<RootDir> open_sources(const std::string& path);

/// Opens (makes, where `make`) the directory `name` in `parent`: root's, 0700. `path` is for messages.
[[nodiscard]] Result<UniqueFd> open_private(int parent, const std::string& name, const std::string& path,
                                            bool make);

/// "STATE/jails" or another directory of the state, checked with all above it.
[[nodiscard]] Result<UniqueFd> open_state_part(const Instance& instance, const std::string& name, bool make);

/// Exit::permission unless this process is root. `what` is "build a jail".
[[nodiscard]] Result<void> demand_root(const std::string& what);

}  // namespace jail::tree
