// How the configurations of known families name the modules that a program loads at run time: nsswitch.conf,
// pam.d and the like. Pure: text in, names out. What an admin wrote, or a package: anything may stand in it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace jail {

/// A file of a configuration.
struct ConfigText {
  std::string path;  ///< in the jail
  std::string text;
};

/// A module that is named.
struct PluginName {
  std::string word;  ///< as the configuration knows it: "sss", "sqlite"
  std::string file;  ///< what stands for {} in the library's path: mostly the word; may be an absolute path
  bool optional = false;  ///< the configuration says that it may be missing
  std::size_t from = 0;   ///< index of the file that names it
};

struct PluginSyntax {
  std::string_view name;
  /// Files that `config` includes: absolute paths, or patterns of such.
  std::vector<std::string> (*includes)(const ConfigText& config);
  /// What all files of the configuration name, together.
  std::vector<PluginName> (*names)(const std::vector<ConfigText>& files);
};

/// nullptr for a name that is not known.
[[nodiscard]] const PluginSyntax* plugin_syntax(std::string_view name);
/// All names that are known.
[[nodiscard]] std::vector<std::string> plugin_syntaxes();

}  // namespace jail
