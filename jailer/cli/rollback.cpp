// jail rollback NAME [GENERATION]: an earlier generation becomes the current one again, policy and all.
#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/verbs.h"
#include "jailer/refresh/refresh.h"
#include "jailer/tree/builder.h"
#include "jailer/tree/state.h"

namespace jail::cli {
namespace {

struct Options {
  std::string name;
  unsigned long generation = 0;
};

struct Done {
  std::string name;
  Rollback moved;
  bool runs = false;  ///< in the generation that was the current one
};

Result<Done> roll_back(const Context& context, const Options& options) {
  JAIL_CHECK(tree::demand_root("roll back a jail"));
  JAIL_TRY(name, jail_name(options.name));
  JAIL_TRY(moved, rollback(context.instance, name, options.generation));
  refresh::give_over(context.instance, name);
  const auto in_use = generations_in_use(context.instance, name);
  const bool runs = in_use && in_use->contains(moved.from) && !in_use->at(moved.from).empty();
  return Done{std::move(name), moved, runs};
}

int run_rollback(const Context& context, const Options& options) {
  const auto done = roll_back(context, options);
  if (!done) return report(done.error());
  const auto& [name, moved, runs] = *done;
  if (context.json) {
    print_json({{"version", 1}, {"name", name}, {"from", moved.from}, {"to", moved.to}});
    return 0;
  }
  if (moved.from == moved.to) {
    if (!context.quiet) fmt::print("{}: generation {} is the current one already\n", name, moved.to);
    return 0;
  }
  if (!context.quiet)
    fmt::print("{}: generation {} is the current one, no longer {}\n", name, moved.to, moved.from);
  if (runs)
    fmt::print(stderr, "jail: {0}: what runs still is generation {1}; to change over: jail restart {0}\n",
               name, moved.from);
  return 0;
}

}  // namespace

void add_rollback(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "rollback", "Make an earlier generation of a jail the current one");
  auto options = std::make_shared<Options>();
  verb->add_option("name", options->name, "The jail")->required();
  verb->add_option("generation", options->generation, "Which; default: the one before the current one");
  verb->callback(
      [&context, options] { context.run = [&context, options] { return run_rollback(context, *options); }; });
}

}  // namespace jail::cli
