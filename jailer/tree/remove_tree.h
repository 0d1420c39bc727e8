// rm -r that follows nothing, on trees that somebody hostile may have filled.
#pragma once

#include <sys/stat.h>

#include <functional>
#include <string>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"

namespace jail::tree {

/// Called before and after each file is unlinked: the store wants to know whose link count (and so ctime) it
/// changes.
struct UnlinkWatch {
  std::function<void(const struct stat&)> before;
  std::function<void(const struct stat&)> after;
};

/// Removes `name` in `parent` with all below it; nothing there is no error, something mounted in it is
/// Exit::busy and is left alone. Directories nested without end cost no descriptors without end. `path` is
/// for messages.
[[nodiscard]] Result<void> remove_tree(int parent, const std::string& name, const std::string& path,
                                       const UnlinkWatch* watch = nullptr);

/// The names in a directory, sorted, without "." and "..". Reads a descriptor of its own.
[[nodiscard]] Result<std::vector<std::string>> names_in(int directory, const std::string& path);

}  // namespace jail::tree
