// What a dynamic loader was compiled with: its default directories, $LIB, $PLATFORM, hwcaps subdirectories,
// cache. Read from the strings of the root's own loader where it has them, else from a table per machine.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "jailer/elf/elf_file.h"

namespace jail::elf {

/// A subdirectory that the loader tries before a directory itself.
struct Subdirectory {
  std::string name;  ///< "glibc-hwcaps/x86-64-v3/", "tls/x86_64/", "" for the directory itself
  std::vector<std::string> capabilities;  ///< what a processor must have for it: "x86-64-v3"; none: any does
  [[nodiscard]] bool variant() const { return !capabilities.empty(); }
};

struct LoaderPolicy {
  Abi abi;
  std::string interpreter;  ///< the usual PT_INTERP; empty for machines that the table does not know
  std::vector<std::string> system_dirs;  ///< in order, each with its final slash
  std::string lib;                       ///< $LIB
  std::string platform;                  ///< $PLATFORM on every processor: AT_PLATFORM
  std::string vdso = "linux-vdso.so.1";  ///< the name of the kernel's own object, which is no file
  std::string cache = "/etc/ld.so.cache";
  std::vector<std::int32_t> cache_flags;  ///< flags of the cache entries that this loader takes
  bool legacy = false;  ///< glibc up to 2.36: older subdirectories count, in directories and in the cache
  std::map<unsigned, std::string> cache_bits;  ///< bit of a legacy cache entry's hwcap -> "haswell/"
  std::vector<Subdirectory> subdirectories;    ///< in search order; the last one is the directory itself
  [[nodiscard]] bool has_system_dir(const std::string& directory) const {
    return std::find(system_dirs.begin(), system_dirs.end(), directory) != system_dirs.end();
  }
  bool from_loader = false;  ///< system_dirs come from the loader file, not from the table
};

/// What a processor can do beyond its architecture's baseline, as the names of subdirectories say it:
/// "x86-64-v3", "haswell". None is the baseline.
using Capabilities = std::vector<std::string>;

/// As `policy`, for a processor that has `capabilities`: the subdirectories for those are no variants to it.
[[nodiscard]] LoaderPolicy for_processor(LoaderPolicy policy, const Capabilities& capabilities);

/// All that a processor has which searches `subdirectory` (without its final slash): "glibc-hwcaps/x86-64-v3"
/// comes with the levels below it.
[[nodiscard]] Capabilities capabilities_for(const LoaderPolicy& policy, const std::string& subdirectory);

/// The table's answer for `abi`. Machines it does not know get /lib and /usr/lib.
[[nodiscard]] LoaderPolicy default_policy(const Abi& abi);

/// As default_policy, corrected by the strings in `loader` (the bytes of the loader's file; may be empty).
[[nodiscard]] LoaderPolicy read_policy(const Abi& abi, std::string_view loader);

}  // namespace jail::elf
