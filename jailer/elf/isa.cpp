#include "jailer/elf/isa.h"

#include <elf.h>
#include <fmt/format.h>

#include <bit>
#include <string_view>

namespace jail::elf {
namespace {

constexpr std::uint32_t kBaseline = 1;
constexpr std::uint32_t kLevels = 0xf;  // up to x86-64-v4, which glibc knows since it checks them (2.33)
constexpr std::string_view kPrefix = "glibc-hwcaps/x86-64-v";

/// The bit of "glibc-hwcaps/x86-64-v3/"; 0 for another subdirectory.
std::uint32_t bit_of(const Subdirectory& subdirectory) {
  const std::string& name = subdirectory.name;
  if (name.size() != kPrefix.size() + 2 || !name.starts_with(kPrefix)) return 0;
  const char level = name[kPrefix.size()];
  return level >= '2' && level <= '9' ? 1U << (level - '1') : 0;
}

}  // namespace

IsaLevels isa_levels(const LoaderPolicy& policy) {
  if (policy.abi.machine != EM_X86_64 && policy.abi.machine != EM_386) return {};
  IsaLevels levels{kBaseline, kLevels, false};
  for (const Subdirectory& subdirectory : policy.subdirectories) {
    const std::uint32_t bit = bit_of(subdirectory);
    levels.told = levels.told || bit != 0;
    levels.known |= bit;
    if (!subdirectory.variant()) levels.processor |= bit;
  }
  return levels;
}

std::string isa_name(std::uint32_t bits) {
  const auto level = std::bit_width(bits);
  return level <= 1 ? "x86-64-baseline" : fmt::format("x86-64-v{}", level);
}

}  // namespace jail::elf
