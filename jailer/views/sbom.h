// Bills of materials of a generation: what is in its tree, from which packages, and what needs what.
#pragma once

#include <ctime>
#include <string>

#include "jailer/tree/lock.h"
#include "jailer/tree/root_dir.h"
#include "supervisor/base/error.h"

namespace jail::views {

/// What both formats are made of. Files that are secret are in neither.
struct SbomInput {
  const Lock& lock;  ///< with the reasons that lock_with_needed() adds
  unsigned long generation = 0;
  std::time_t created = 0;
};

/// CycloneDX 1.5, as JSON.
[[nodiscard]] Result<std::string> cyclonedx(const SbomInput& input);

/// SPDX 2.3, as JSON. It must have the SHA-1 of each file: `tree` is read for that, and what is not as locked
/// is an error.
[[nodiscard]] Result<std::string> spdx(const SbomInput& input, const tree::RootDir& tree);

/// A UUID (version 8) made of a hash over `purpose`, the tree's hash and the packages that it is from: the
/// same wherever the same was built.
[[nodiscard]] Result<std::string> uuid_of(const Lock& lock, std::string_view purpose);

/// "2026-11-25T17:30:00Z"
[[nodiscard]] std::string utc(std::time_t time);

}  // namespace jail::views
