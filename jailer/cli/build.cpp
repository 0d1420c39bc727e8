// jail build NAME...: manifest -> plan -> launch spec and filter -> generation.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/plan_build.h"
#include "jailer/cli/verbs.h"
#include "jailer/tree/builder.h"

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
};

Result<Outcome> build_one(const Context& context, const std::string& name, const Options& options) {
  JAIL_TRY(planned, plan_build(context, name));
  JAIL_TRY(built, build(context.instance, planned.plan, planned.frozen, {options.force}));
  Outcome outcome{planned.plan.name, built, planned.plan.warnings};
  JAIL_TRY(unmet, unmet_mentions(planned.plan, built.mentions));
  outcome.warnings.insert(outcome.warnings.end(), unmet.begin(), unmet.end());
  return outcome;
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
    fmt::print("{}: up to date (generation {})\n", outcome.name, built.generation);
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
