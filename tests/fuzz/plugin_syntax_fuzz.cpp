// Any bytes as each of the configurations that name modules.
#include <cstdint>
#include <cstdlib>

#include "jailer/closure/plugin_syntax.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace jail;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::vector<ConfigText> files = {{"/etc/a.module", text}, {"/etc/b/c", text.substr(size / 2)}};
  for (const std::string& name : plugin_syntaxes()) {
    const PluginSyntax* syntax = plugin_syntax(name);
    for (const ConfigText& file : files) (void)syntax->includes(file);
    for (const PluginName& plugin : syntax->names(files))
      if (plugin.from >= files.size()) std::abort();
  }
  return 0;
}
