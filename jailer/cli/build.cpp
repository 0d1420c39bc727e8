// jail build NAME...: manifest -> plan -> launch spec and filter -> generation.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/plan_build.h"
#include "jailer/cli/verbs.h"
#include "jailer/manifest/search.h"
#include "jailer/refresh/refresh.h"
#include "jailer/tree/builder.h"
#include "jailer/tree/state.h"
#include "jailer/witness/witness.h"

namespace jail::cli {
namespace {

struct Options {
  std::vector<std::string> names;
  bool force = false;
};

struct Outcome {
  std::string name;
  BuildResult built;
  std::vector<std::string> warnings;
  bool witnessed = false;  ///< nothing had to be read
};

Result<Outcome> build_one(const Context& context, const std::string& name, const Options& options) {
  // A witness knows the running system and jails by name alone.
  const bool witnessed = context.root == "/" && valid_name(name) && !manifest::is_path(name);
  JAIL_CHECK(tree::demand_root("build a jail"));
  if (witnessed && !options.force)
    if (auto same = still_standing(context.instance, name)) {
      refresh::forget(context.instance, name);
      return Outcome{
          name, {same->generation, false, same->files, same->bytes}, std::move(same->warnings), true};
    }
  Looks looks;
  JAIL_TRY(planned, plan_build(context, name, &looks));
  JAIL_TRY(built, build(context.instance, planned.plan, planned.frozen,
                        {options.force, witnessed ? &looks : nullptr}));
  refresh::forget(context.instance, planned.plan.name);
  return Outcome{planned.plan.name, built, planned.plan.warnings};
}

void print(const Context& context, const Outcome& outcome) {
  for (const std::string& warning : outcome.warnings)
    fmt::print(stderr, "jail: {}: warning: {}\n", outcome.name, warning);
  if (context.json || context.quiet) return;
  const BuildResult& built = outcome.built;
  if (built.changed)
    fmt::print("{}: generation {}, {} files, {}\n", outcome.name, built.generation, built.files,
               human_size(built.bytes));
  else
    fmt::print("{}: up to date (generation {}){}\n", outcome.name, built.generation,
               outcome.witnessed && context.verbose ? ", as its witness says" : "");
}

nlohmann::json as_json(const Outcome& outcome) {
  const BuildResult& built = outcome.built;
  return {{"name", outcome.name}, {"generation", built.generation}, {"changed", built.changed},
          {"files", built.files}, {"bytes", built.bytes},           {"warnings", outcome.warnings}};
}

/// Each name in turn; one that fails does not keep the others from being built. The status is the last
/// failure's.
int run(const Context& context, const Options& options) {
  int status = 0;
  nlohmann::json built = nlohmann::json::array();
  for (const std::string& name : options.names) {
    const auto outcome = build_one(context, name, options);
    if (!outcome) {
      status = report(outcome.error());
      continue;
    }
    print(context, *outcome);
    if (context.json) built.push_back(as_json(*outcome));
  }
  if (context.json) print_json({{"version", 1}, {"jails", std::move(built)}});
  return status;
}

}  // namespace

void add_build(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, context, "build", "Build the tree of a jail from its manifest, if anything changed");
  auto options = std::make_shared<Options>();
  verb->add_option("name", options->names, "The jails, or paths of manifests")->required();
  verb->add_flag("--force", options->force, "Make a new generation even if nothing changed");
  verb->callback(
      [&context, options] { context.run = [&context, options] { return run(context, *options); }; });
}

}  // namespace jail::cli
