#include "jailer/cli/cli.h"

#include <cstdio>

namespace jail::cli {

int report(const Error& error) {
  fmt::print(stderr, "jail: {}\n", error.message);
  if (!error.hint.empty()) fmt::print(stderr, "      {}\n", error.hint);
  return static_cast<int>(error.exit);
}

CLI::App* add_verb(CLI::App& app, Context& context, const std::string& name, const std::string& description) {
  CLI::App* verb = app.add_subcommand(name, description);
  verb->fallthrough();  // --home and the like are understood behind the verb too
  (void)context;
  return verb;
}

}  // namespace jail::cli
