// jail remove NAME...: the generations of a jail, and with --purge its volumes.
#include <fmt/ranges.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/verbs.h"
#include "jailer/tree/builder.h"
#include "jailer/tree/state.h"

namespace jail::cli {
namespace {

struct Options {
  std::vector<std::string> names;
  bool purge = false;
};

Result<void> remove_one(const Context& context, const std::string& name, const Options& options) {
  JAIL_CHECK(tree::demand_root("remove a jail"));
  JAIL_TRY(running, running_in(context.instance, name));
  if (!running.empty())
    return with_hint(fail(Exit::busy, "{}: still runs (pid {})", name, fmt::join(running, ", ")),
                     fmt::format("run: jail stop {}", name));
  return remove(context.instance, name, options.purge);
}

int run(const Context& context, const Options& options) {
  int status = 0;
  nlohmann::json removed = nlohmann::json::array();
  for (const std::string& name_or_path : options.names) {
    const auto name = jail_name(name_or_path);
    const auto done = name ? remove_one(context, *name, options) : tl::unexpected(name.error());
    if (!done) {
      status = report(done.error());
      continue;
    }
    removed.push_back(*name);
    if (!context.json && !context.quiet) fmt::print("{}: removed\n", *name);
  }
  if (context.json) print_json({{"version", 1}, {"removed", std::move(removed)}});
  return status;
}

}  // namespace

void add_remove(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "remove", "Remove a jail's trees; its volumes stay");
  auto options = std::make_shared<Options>();
  verb->add_option("name", options->names, "The jails")->required();
  verb->add_flag("--purge", options->purge, "Remove its volumes too, but for those that other jails use");
  verb->callback(
      [&context, options] { context.run = [&context, options] { return run(context, *options); }; });
}

}  // namespace jail::cli
