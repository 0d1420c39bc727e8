// jail: makes, explains and verifies root trees, and talks to jaild.
#include <algorithm>
#include <cstdio>
#include <iterator>
#include <span>
#include <string_view>

#include "jailer/cli/cli.h"
#include "jailer/cli/verbs.h"

// Behind ours, which includes CLI11 without its validators.
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

namespace {

using namespace jail;
using namespace jail::cli;

/// Takes what stands behind "--" away from CLI11, which would take "[a,b]" in it for a list: it is a command
/// of `exec`, word for word. Returns the number of words that are left.
int cut_command(int argc, char** argv, Context& context) {
  char** const end = argv + argc;
  char** const dashes = std::find(argv, end, std::string_view("--"));
  if (std::find(argv, dashes, std::string_view("exec")) == dashes || dashes == end) return argc;
  context.behind.assign(dashes + 1, end);
  return static_cast<int>(dashes - argv);
}

struct Verb {
  std::string_view name;
  AddVerb add;
};
constexpr Verb verbs[] = {
    {"build", add_build},
    {"deps", add_deps},
    {"diff", add_diff},
    {"doctor", add_doctor},
    {"exec", add_exec},
    {"export", add_export},
    {"files", add_files},
    {"gc", add_gc},
    {"graph", add_graph},
    {"history", add_history},
    {"init", add_init},
    {"lint", add_lint},
    {"list", add_list},
    {"lock", add_lock},
    {"logs", add_logs},
    {"plan", add_plan},
    {"probe", add_probe},
    {"ps", add_ps},
    {"refresh", add_refresh},
    {"remove", add_remove},
    {"rollback", add_rollback},
    {"sbom", add_sbom},
    {"show", add_show},
    {"stale", add_stale},
    {"start", add_start_stop},
    {"stop", add_start_stop},
    {"restart", add_start_stop},
    {"reload", add_start_stop},
    {"enable", add_start_stop},
    {"disable", add_start_stop},
    {"status", add_status},
    {"verify", add_verify},
    {"why", add_why},
};

using Words = std::span<char* const>;

bool has(Words words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

/// Declares the verbs that `words` may mean: declaring all of them takes longer than most of them run. Where
/// none is among them, all are declared, for the help or the error.
void declare_verbs(CLI::App& app, Context& context, Words words) {
  const bool all = has(words, "--help") || has(words, "-h") ||
                   std::none_of(std::begin(verbs), std::end(verbs),
                                [&](const Verb& verb) { return has(words, verb.name); });
  AddVerb last = nullptr;
  for (const Verb& verb : verbs) {
    if (verb.add == last || (!all && !has(words, verb.name))) continue;
    verb.add(app, context);
    last = verb.add;
  }
}

void declare(CLI::App& app, Context& context) {
  app.set_version_flag("--version", "jail " JAIL_VERSION);
  app.add_option("--home", context.home, "Keep a whole instance below DIR (JAIL_HOME)")->type_name("DIR");
  app.add_option("--manifests", context.manifests, "Look for manifests in DIR first (JAIL_MANIFESTS)")
      ->type_name("DIR");
  app.add_option("--root", context.root, "Read sources from the root directory DIR")->type_name("DIR");
  app.add_flag("--json", context.json, "Print the result as JSON");
  app.add_flag("-q,--quiet", context.quiet, "Print results and errors only");
  app.add_flag("-v,--verbose", context.verbose, "Say more");
  app.require_subcommand(1);
}

int run(int argc, char** argv) {
  CLI::App app{"Root trees for network daemons: built, verified, and run by jaild.", "jail"};
  Context context;
  declare(app, context);
  declare_verbs(app, context, Words(argv, static_cast<std::size_t>(argc)));
  try {
    app.parse(cut_command(argc, argv, context), argv);
    if (!context.behind.empty() && !app.got_subcommand("exec")) throw CLI::ExtrasError(context.behind);
  } catch (const CLI::ParseError& error) {
    const int status = app.exit(error, std::cout, std::cerr);
    return status == 0 ? 0 : static_cast<int>(Exit::usage);
  }
  auto instance = find_instance(context.home, context.manifests);
  if (!instance) return report(instance.error());
  context.instance = *instance;
  return context.run ? context.run() : static_cast<int>(Exit::internal);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "jail: internal error: {}\n", error.what());
    return static_cast<int>(Exit::internal);
  }
}
