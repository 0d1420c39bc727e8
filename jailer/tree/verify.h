// A tree against its lock, and the host's files against it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "jailer/tree/lock.h"
#include "jailer/tree/progress.h"
#include "supervisor/base/error.h"
#include "supervisor/spec/generation.h"
#include "supervisor/spec/instance.h"

namespace jail {

/// One difference between a tree and its lock.
struct Difference {
  std::string path;  ///< in the tree; for a frozen file its name alone ("launch.json")
  std::string
      what;  ///< "content", "mode", "owner", "target", "type", "missing", "added", "device", "xattr", "size"
  std::string text;  ///< the whole sentence: "/usr/sbin/named: mode is 0777, must be 0755"
};

struct VerifyResult {
  std::size_t entries = 0;
  std::uint64_t bytes = 0;              ///< of all files, each path counted
  std::size_t read = 0;                 ///< files that were read
  std::vector<Difference> differences;  ///< sorted by path
};

struct VerifyOptions {
  /// Trust stamps: what still has the inode, size, time of modification and time of change that the
  /// generation's index or the index of this instance's store knows is not read. Only a disk that decays and
  /// somebody who sets the clock get past them.
  const Instance* quick = nullptr;
  tree::Progress* progress = nullptr;
};

/// Compares the tree of a generation with its lock, every byte of it, and the frozen files with their hashes.
/// Where they differ, its index goes: the next build reads everything, and makes what is damaged anew.
/// A lock that is not as it was written is Exit::manifest: nothing can be compared with it.
[[nodiscard]] Result<VerifyResult> verify(const generation::Opened& opened,
                                          const VerifyOptions& options = {});

/// A file of a source root that is no longer what the lock has of it.
struct HostChange {
  std::string source;
  std::string path;     ///< in the tree
  std::string what;     ///< "content", "gone", "type", "xattr"
  std::string package;  ///< by the lock; empty for none
  std::string locked_version;
  std::string version;  ///< that the root has now; empty where the package is gone
};

struct HostResult {
  std::size_t files = 0;  ///< of the lock that have a source
  std::uint64_t bytes = 0;
  std::size_t read = 0;
  std::vector<HostChange> changes;  ///< sorted by package, then by source
};

/// Compares the sources of `lock` in `root` with their hashes, and their attributes with those that it lists:
/// one that the lock has not is no change. options.quick: those that the store's index knows by their stamp
/// are not read.
[[nodiscard]] Result<HostResult> verify_host(const Lock& lock, const std::string& root,
                                             const VerifyOptions& options = {});

}  // namespace jail
