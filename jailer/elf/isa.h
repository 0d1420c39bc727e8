// The levels of x86 processors, as .note.gnu.property asks for them and ld.so checks them before a program
// starts.
#pragma once

#include <cstdint>
#include <string>

#include "jailer/elf/loader_policy.h"

namespace jail::elf {

/// Bits of GNU_PROPERTY_X86_ISA_1_NEEDED: 1 is the baseline, 2 x86-64-v2, 4 x86-64-v3 and so on. None for
/// other machines, whose loaders check nothing.
struct IsaLevels {
  std::uint32_t processor = 0;  ///< what the processor of the policy has
  std::uint32_t known = 0;      ///< what the loader knows of
  bool told = false;            ///< subdirectories tell processors apart; a loader for 32 bits has none
};

[[nodiscard]] IsaLevels isa_levels(const LoaderPolicy& policy);

/// "x86-64-v3": the highest level of `bits`, which are not 0.
[[nodiscard]] std::string isa_name(std::uint32_t bits);

}  // namespace jail::elf
