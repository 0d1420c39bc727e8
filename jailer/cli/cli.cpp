#include "jailer/cli/cli.h"

#include <cstdio>
#include <filesystem>

#include "supervisor/base/quote.h"

namespace jail::cli {

int report(const Error& error) {
  fmt::print(stderr, "jail: {}\n", error.message);
  if (!error.hint.empty()) fmt::print(stderr, "      {}\n", error.hint);
  return static_cast<int>(error.exit);
}

Result<std::string> jail_name(const std::string& name_or_path) {
  const bool path = name_or_path.find('/') != std::string::npos || name_or_path.ends_with(".toml");
  std::string name = path ? std::filesystem::path(name_or_path).stem().string() : name_or_path;
  if (!valid_name(name))
    return with_hint(fail(Exit::usage, "{} cannot be the name of a jail", quote(name)),
                     "names are made of a-z, 0-9, '.', '_' and '-', and begin with a letter or digit");
  return name;
}

CLI::App* add_verb(CLI::App& app, Context& context, const std::string& name, const std::string& description) {
  CLI::App* verb = app.add_subcommand(name, description);
  verb->fallthrough();  // --home and the like are understood behind the verb too
  (void)context;
  return verb;
}

}  // namespace jail::cli
