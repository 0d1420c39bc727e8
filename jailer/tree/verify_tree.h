// A tree against a lock, wherever the two lie.
#pragma once

#include <cstdint>
#include <string>

#include "jailer/tree/builder.h"
#include "jailer/tree/root_dir.h"

namespace jail::tree {

/// Where the volumes are: mounted over the tree's empty directories, or (`open`) in the tree itself, where
/// what has been added to them is no difference.
enum class Volumes : std::uint8_t { outside, open };

/// As verify(): `files` is the directory that jail.lock and what it froze lie in, `where` its path.
[[nodiscard]] Result<VerifyResult> verify_tree(int files, const std::string& where, RootDir tree,
                                               Volumes volumes, const VerifyOptions& options = {});

}  // namespace jail::tree
