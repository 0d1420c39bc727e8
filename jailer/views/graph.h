// What is in a jail and why, as a picture: for people, in three formats.
#pragma once

#include <string>

#include "jailer/tree/lock.h"

namespace jail::views {

/// A tree of lines: below each file what it alone, or it first, brings in. What is alike is told in one line.
[[nodiscard]] std::string graph_text(const Lock& lock);

/// For graphviz: a cluster a package, a node a file, an arrow a reason.
[[nodiscard]] std::string graph_dot(const Lock& lock);

/// An SVG that needs nothing else: packages as boxes in columns, from the manifest to programs, what they
/// load, and data; files as lines whose bars are as long as they are large; arrows to what is needed. Each
/// entry of the lock has a <title> with its path and its reasons. `lock` has those that lock_with_needed()
/// adds.
[[nodiscard]] std::string graph_svg(const Lock& lock);

}  // namespace jail::views
