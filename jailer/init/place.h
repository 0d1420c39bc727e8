// What `jail init` does to the host's file system, below directories that nobody but root can change: it
// looks, makes what is missing, and removes what is its own. It never replaces anything.
#pragma once

#include <sys/stat.h>

#include <string>

#include "supervisor/base/error.h"

namespace jail::init {

/// What stands at a path. Nothing, where the directory that it would be in is not there either.
struct Seen {
  bool there = false;
  struct stat status {};
  std::string content;  ///< of a regular file (of 4 MiB at most), or the target of a link
  bool whole = false;   ///< the content is all of it

  [[nodiscard]] bool is_file_with(std::string_view bytes) const {
    return there && S_ISREG(status.st_mode) && whole && content == bytes;
  }
  [[nodiscard]] bool is_link_to(std::string_view target) const {
    return there && S_ISLNK(status.st_mode) && content == target;
  }
};

/// Looks at `path` (absolute, clean), a final link not followed. Exit::config if somebody else than root
/// could change what is found on the way.
[[nodiscard]] Result<Seen> look(const std::string& path);

/// Exit::config unless what was seen at `path`, if anything, is a directory that only root can change.
[[nodiscard]] Result<void> demand_closed_directory(const std::string& path, const Seen& seen);

/// Each makes `path`, whole and synced or not at all; false if something is there meanwhile. The directory
/// that it goes into is made (0755) where it is missing.
[[nodiscard]] Result<bool> make_directory(const std::string& path, unsigned mode, gid_t group);
[[nodiscard]] Result<bool> make_file(const std::string& path, std::string_view bytes, unsigned mode,
                                     gid_t group);
[[nodiscard]] Result<bool> make_link(const std::string& path, const std::string& target);

/// Removes a file or link; what is not there is removed.
[[nodiscard]] Result<void> remove_file(const std::string& path);
/// Removes what a run that died has left of `path`.
void remove_half_made(const std::string& path);
/// Removes a directory; false if something is in it.
[[nodiscard]] Result<bool> remove_directory(const std::string& path);

}  // namespace jail::init
