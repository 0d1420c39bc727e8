// jail build NAME...: manifest -> plan -> launch spec and filter -> generation; or, with --into, a plain
// tree.
#include <fmt/ranges.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/plan_build.h"
#include "jailer/cli/verbs.h"
#include "jailer/closure/source_root.h"
#include "jailer/manifest/search.h"
#include "jailer/refresh/refresh.h"
#include "jailer/tree/builder.h"
#include "jailer/tree/plain.h"
#include "jailer/tree/state.h"
#include "jailer/witness/witness.h"
#include "supervisor/base/quote.h"

namespace jail::cli {
namespace {

struct Options {
  std::vector<std::string> names;
  bool force = false;
  std::string into;  ///< the directory of a plain tree; empty: a generation
};

struct Outcome {
  std::string name;
  BuildResult built;
  std::string into;
  std::vector<pid_t> living = {};  ///< in what was not as built
  std::vector<std::string> warnings;
  bool witnessed = false;  ///< nothing had to be read
};

/// What a manifest says is done as root: those of the places where they are looked for must be root's alone.
/// A path, or --manifests, is the word of whoever called.
Result<void> demand_safe_manifests(const Context& context, const Planned& planned) {
  std::vector<std::string> places = context.instance.manifest_dirs;
  const char* named = ::secure_getenv("JAIL_MANIFESTS");
  if (context.manifests || (named != nullptr && *named != '\0')) places.pop_back();
  for (const manifest::Source& source : planned.manifest.sources)
    for (const std::string& place : places)
      if (is_at_or_below(source.path, place)) JAIL_CHECK(tree::demand_safe_file(source.path, "manifest"));
  return {};
}

/// A plain tree has no mounts: what the manifest shows live of the host is not in it.
Result<Outcome> build_into(const Context& context, Planned& planned, const Options& options) {
  std::error_code error;
  const std::string into = std::filesystem::absolute(options.into, error).lexically_normal().string();
  const std::string directory =
      into.size() > 1 && into.ends_with('/') ? into.substr(0, into.size() - 1) : into;
  JAIL_TRY(built, build_plain(context.instance, planned.plan, directory, {options.force, nullptr}));
  for (const manifest::Config& config : planned.manifest.configs)
    planned.plan.warnings.push_back(fmt::format(
        "{} is live configuration: in a plain tree it is empty, copy what you need", quote(config.to)));
  return Outcome{planned.plan.name, built, directory, {}, planned.plan.warnings};
}

Result<Outcome> build_one(const Context& context, const std::string& name, const Options& options) {
  // A witness knows the running system and jails by name alone.
  const bool witnessed =
      options.into.empty() && context.root == "/" && valid_name(name) && !manifest::is_path(name);
  JAIL_CHECK(tree::demand_root("build a jail"));
  if (auto same = witnessed && !options.force ? still_standing(context.instance, name) : std::nullopt) {
    refresh::forget(context.instance, name);
    return Outcome{
        name, {same->generation, false, same->files, same->bytes}, {}, {}, std::move(same->warnings), true};
  }
  Looks looks;
  Memo memo;
  if (witnessed && !options.force) memo = Memo::load(context.instance, name);
  JAIL_TRY(planned, plan_build(context, name, &looks, witnessed ? &memo : nullptr));
  JAIL_CHECK(demand_safe_manifests(context, planned));
  if (!options.into.empty()) return build_into(context, planned, options);
  JAIL_TRY(built, build(context.instance, planned.plan, planned.frozen,
                        {options.force, witnessed ? &looks : nullptr, witnessed ? &memo : nullptr}));
  refresh::forget(context.instance, planned.plan.name);
  Outcome outcome{planned.plan.name, built, {}, {}, built.warnings};
  if (!built.mended.empty())
    if (const auto running = running_in(context.instance, outcome.name)) outcome.living = *running;
  return outcome;
}

void print(const Context& context, const Outcome& outcome) {
  for (const std::string& warning : outcome.warnings)
    fmt::print(stderr, "jail: {}: warning: {}\n", outcome.name, warning);
  for (const std::string& damage : outcome.built.mended)
    fmt::print(stderr, "jail: {}: was not as built, is made anew: {}\n", outcome.name, damage);
  if (!outcome.living.empty())
    fmt::print(stderr, "jail: {0}: what runs (pid {1}) still has the damage; run: jail restart {0}\n",
               outcome.name, fmt::join(outcome.living, ", "));
  if (context.json || context.quiet) return;
  const BuildResult& built = outcome.built;
  if (!outcome.into.empty())
    fmt::print("{}: {}{}, {} files, {}\n", outcome.name,
               built.changed ? "" : "up to date: ", escape(outcome.into), built.files,
               human_size(built.bytes));
  else if (built.changed)
    fmt::print("{}: generation {}, {} files, {}\n", outcome.name, built.generation, built.files,
               human_size(built.bytes));
  else
    fmt::print("{}: up to date (generation {}){}\n", outcome.name, built.generation,
               outcome.witnessed && context.verbose ? ", as its witness says" : "");
}

nlohmann::json as_json(const Outcome& outcome) {
  const BuildResult& built = outcome.built;
  nlohmann::json object = {{"name", outcome.name},   {"changed", built.changed},
                           {"files", built.files},   {"bytes", built.bytes},
                           {"mended", built.mended}, {"warnings", outcome.warnings}};
  if (outcome.into.empty())
    object["generation"] = built.generation;
  else
    object["into"] = outcome.into;
  return object;
}

/// Each name in turn; one that fails does not keep the others from being built. The status is the last
/// failure's.
int run(const Context& context, const Options& options) {
  if (!options.into.empty() && options.names.size() != 1)
    return report({Exit::usage, "--into takes one jail: a directory holds one tree", ""});
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
  verb->add_option("--into", options->into,
                   "Make a plain tree in DIR instead, which nothing of jail is needed for")
      ->type_name("DIR");
  verb->callback(
      [&context, options] { context.run = [&context, options] { return run(context, *options); }; });
}

}  // namespace jail::cli
