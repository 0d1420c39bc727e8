// Random graphs of ELF objects, written as files: search paths and tokens of every kind, clashing and missing
// sonames, links, files that are not what they seem, variants for some processors, filters, versions. The
// same seed and number make the same graph.
#pragma once

#include <string>
#include <vector>

namespace jail::elf::testing {

/// A loader of this machine, and what it said of itself (ld.so --help).
struct MachineLoader {
  std::string path;
  bool wide = true;
  std::string lib;                        ///< its $LIB
  bool plain_platform = false;            ///< $PLATFORM is what it is on every processor
  std::vector<std::string> levels;        ///< glibc-hwcaps subdirectories that it searches here, best first
  std::vector<std::string> capabilities;  ///< older subdirectories that it searches here
  std::vector<std::string> legacy;        ///< those and others, to put files into
};

struct Graph {
  std::string directory;
  std::string program;                ///< what is to be listed
  std::string link;                   ///< a symlink to it in another directory; empty: none
  std::vector<std::string> levels;    ///< the glibc-hwcaps subdirectories that count in this graph
  bool vdso = false;                  ///< some object needs the kernel's own by name
  std::vector<std::string> optional;  ///< names that some object has as DT_AUXILIARY
};

/// Writes graph `number` of `seed` below `directory`, which it makes.
Graph make_graph(const MachineLoader& loader, const std::string& directory, unsigned long seed,
                 unsigned number);

}  // namespace jail::elf::testing
