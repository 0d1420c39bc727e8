// jail stale [NAME...]: which jails hold other files than a build would put there now. 0: none, 1: some.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/generations.h"
#include "jailer/cli/plan_build.h"
#include "jailer/cli/verbs.h"
#include "jailer/refresh/refresh.h"
#include "jailer/tree/builder.h"
#include "jailer/tree/compare.h"
#include "jailer/tree/marks.h"
#include "jailer/tree/state.h"

namespace jail::cli {
namespace {

struct Options {
  std::vector<std::string> names;
  bool mark = false;
};

Result<LockDiff> look(const Context& context, const std::string& name) {
  JAIL_CHECK(tree::demand_root("compare a jail with the host"));
  JAIL_TRY(planned, plan_build(context, name));
  return preview(context.instance, planned.plan, planned.frozen);
}

/// By package where that explains it; --verbose has each path, too.
void print(const Context& context, const std::string& name, const LockDiff& diff) {
  for (const std::string& line : refresh::in_words(diff)) fmt::print("{}: {}\n", name, line);
  if (diff.packages.empty() || !context.verbose) return;
  for (const std::string& line : refresh::paths_in_words(diff)) fmt::print("{}: {}\n", name, line);
}

/// Why it cannot be told whether it is stale: the first line says what.
std::vector<std::string> cannot_be_told(const Error& error) {
  return {"it cannot be built any more: " + error.message.substr(0, error.message.find('\n'))};
}

/// For `jail status` and `jail list`, and for whoever looks at the mark.
Result<void> mark(const Context& context, const std::string& name, const Result<LockDiff>& diff) {
  if (!diff && !generation::open_current(context.instance, name)) return {};  // not built
  if (!diff) return mark_stale(context.instance, name, cannot_be_told(diff.error()));
  return diff->entries.empty() ? clear_stale(context.instance, name)
                               : mark_stale(context.instance, name, refresh::in_words(*diff));
}

nlohmann::json as_json(const std::string& name, const LockDiff& diff) {
  nlohmann::json packages = nlohmann::json::array();
  for (const PackageChange& change : diff.packages)
    packages.push_back({{"name", change.name}, {"before", change.before}, {"after", change.after}});
  nlohmann::json paths = nlohmann::json::array();
  for (const EntryChange& change : diff.entries) paths.push_back(change.path);
  return {{"name", name}, {"stale", !diff.entries.empty()}, {"packages", packages}, {"paths", paths}};
}

int run_stale(const Context& context, const Options& options) {
  const auto names =
      options.names.empty() ? built_jails(context) : Result<std::vector<std::string>>(options.names);
  if (!names) return report(names.error());
  int status = 0;
  nlohmann::json jails = nlohmann::json::array();
  for (const std::string& word : *names) {
    const auto name = jail_name(word);
    const auto diff = name ? look(context, word) : tl::unexpected(name.error());
    const auto marked = name && options.mark ? mark(context, *name, diff) : Result<void>();
    if (!marked) status = report(marked.error());
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
  auto options = std::make_shared<Options>();
  verb->add_option("name", options->names, "The jails; all that are built when none is named");
  verb->add_flag("--mark", options->mark, "And have jail status and jail list say so from now on");
  verb->callback(
      [&context, options] { context.run = [&context, options] { return run_stale(context, *options); }; });
}

}  // namespace jail::cli
