// jail: makes, explains and verifies root trees, and talks to jaild.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string_view>

#include "jailer/cli/cli.h"
#include "jailer/cli/verbs.h"

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

int run(int argc, char** argv) {
  CLI::App app{"Root trees for network daemons: built, verified, and run by jaild.", "jail"};
  Context context;
  app.set_version_flag("--version", "jail " JAIL_VERSION);
  app.add_option("--home", context.home, "Keep a whole instance below DIR (JAIL_HOME)")->type_name("DIR");
  app.add_option("--manifests", context.manifests, "Look for manifests in DIR first (JAIL_MANIFESTS)")
      ->type_name("DIR");
  app.add_option("--root", context.root, "Read sources from the root directory DIR")->type_name("DIR");
  app.add_flag("--json", context.json, "Print the result as JSON");
  app.add_flag("-q,--quiet", context.quiet, "Print results and errors only");
  app.add_flag("-v,--verbose", context.verbose, "Say more");
  app.require_subcommand(1);
  const AddVerb verbs[] = {
      add_build,      add_deps,   add_diff,    add_doctor,   add_exec, add_export, add_files,
      add_gc,         add_graph,  add_history, add_init,     add_lint, add_list,   add_lock,
      add_logs,       add_plan,   add_remove,  add_rollback, add_sbom, add_show,   add_stale,
      add_start_stop, add_status, add_verify,  add_why,
  };
  for (const AddVerb add : verbs) add(app, context);
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
