// jail stale [NAME...]: which jails hold other files than a build would put there now. 0: none, 1: some.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/generations.h"
#include "jailer/cli/plan_build.h"
#include "jailer/cli/verbs.h"
#include "jailer/tree/builder.h"
#include "jailer/tree/compare.h"
#include "jailer/tree/state.h"
#include "supervisor/base/quote.h"

namespace jail::cli {
namespace {

Result<LockDiff> look(const Context& context, const std::string& name) {
  JAIL_CHECK(tree::demand_root("compare a jail with the host"));
  JAIL_TRY(planned, plan_build(context, name));
  return preview(context.instance, planned.plan, planned.frozen);
}

/// By package where that explains it; --verbose has each path, too.
void print(const Context& context, const std::string& name, const LockDiff& diff) {
  for (const PackageChange& change : diff.packages)
    fmt::print("{}: {} {} -> {}\n", name, escape(change.name),
               change.before.empty() ? "(not there)" : escape(change.before),
               change.after.empty() ? "(not there)" : escape(change.after));
  if (!diff.packages.empty() && !context.verbose) return;
  static constexpr const char* words[] = {"would be added", "would be removed", "differs"};
  for (const EntryChange& change : diff.entries)
    fmt::print("{}: {} {}\n", name, escape(change.path), words[static_cast<std::size_t>(change.kind)]);
}

nlohmann::json as_json(const std::string& name, const LockDiff& diff) {
  nlohmann::json packages = nlohmann::json::array();
  for (const PackageChange& change : diff.packages)
    packages.push_back({{"name", change.name}, {"before", change.before}, {"after", change.after}});
  nlohmann::json paths = nlohmann::json::array();
  for (const EntryChange& change : diff.entries) paths.push_back(change.path);
  return {{"name", name}, {"stale", !diff.entries.empty()}, {"packages", packages}, {"paths", paths}};
}

int run_stale(const Context& context, std::vector<std::string> names) {
  if (names.empty()) {
    auto all = built_jails(context);
    if (!all) return report(all.error());
    names = std::move(*all);
  }
  int status = 0;
  nlohmann::json jails = nlohmann::json::array();
  for (const std::string& word : names) {
    const auto name = jail_name(word);
    const auto diff = name ? look(context, word) : tl::unexpected(name.error());
    if (!diff) {
      status = report(diff.error());
      continue;
    }
    const bool stale = !diff->entries.empty();
    if (stale && status == 0) status = static_cast<int>(Exit::answer_no);
    if (context.json)
      jails.push_back(as_json(*name, *diff));
    else if (stale)
      print(context, *name, *diff);
    else if (context.verbose)
      fmt::print("{}: as on the host\n", *name);
  }
  if (context.json) print_json({{"version", 1}, {"jails", std::move(jails)}});
  return status;
}

}  // namespace

void add_stale(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "stale", "Say which jails hold other files than the host has now");
  auto names = std::make_shared<std::vector<std::string>>();
  verb->add_option("name", *names, "The jails; all that are built when none is named");
  verb->callback(
      [&context, names] { context.run = [&context, names] { return run_stale(context, *names); }; });
}

}  // namespace jail::cli
