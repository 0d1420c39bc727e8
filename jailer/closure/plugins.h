// Modules that a configuration names (manifest::Plugins), where the jail has that configuration.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "jailer/closure/work.h"

namespace jail {

/// A module that a bundle has brought.
struct FoundPlugin {
  std::string word;  ///< as the configuration names it
  std::string path;  ///< as the program will load it: a path or a soname
};

/// Looks into the configurations of `bundle`, and brings in the modules that it names. Called again when
/// there may be more of them: what is in `done` (by module) was brought already. Returns the new ones.
[[nodiscard]] std::vector<FoundPlugin> plan_plugins(Work& work, const manifest::Bundle& bundle,
                                                    std::set<std::string>& done, const Place& place);

}  // namespace jail
