// The witness of a generation: everything that the build which found it up to date had looked at, with the
// stat of each. While all of it is as it was, the next build has nothing to do, and knows so without reading
// a manifest, an object or a byte of the tree.
//
// One file beside the lock, gen/NUMBER/witness: "jail-witness 1", then fields ended by a NUL byte each. It
// only saves time: where it is missing, torn or of another jail program, the build looks for itself.
//
// A stamp is worth something only if the kernel's clock of file times has moved on since (git's "racy"
// rule): what changed in the tick in which the build began, or later, leaves no witness.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jailer/witness/looks.h"
#include "supervisor/spec/instance.h"

namespace jail {

/// What a build that has nothing to do says.
struct Standing {
  unsigned long generation = 0;
  std::size_t files = 0;
  std::uint64_t bytes = 0;
  std::vector<std::string> warnings;
};

/// The witness's answer for the current generation of `name`: nothing where a build has to look. Sources are
/// those of "/". Takes no lock and changes nothing.
[[nodiscard]] std::optional<Standing> still_standing(const Instance& instance, const std::string& name);

/// Leaves a witness in the generation that the descriptor `generation` holds; none where something is no
/// longer what was looked at, or changed since the first look. Failing to write is no error.
void leave_witness(const Instance& instance, int generation, const Standing& standing, const Looks& looks);

}  // namespace jail
