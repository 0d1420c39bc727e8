// jail lint FILE...: every problem of every manifest, with file, line and column.
#include <unistd.h>

#include <memory>

#include "jailer/cli/verbs.h"
#include "jailer/manifest/reader.h"
#include "jailer/manifest/references.h"
#include "supervisor/base/io.h"

namespace jail::cli {
namespace {

// Adds what is wrong with one manifest to `out`. That it cannot be read at all is no finding: it goes to
// stderr.
Exit lint(const Context& context, const std::string& name, std::string& out) {
  const auto manifest = manifest::load(context.instance, name);
  if (!manifest && manifest.error().exit != Exit::manifest) {
    report(manifest.error());
    return manifest.error().exit;
  }
  if (!manifest) {
    out += manifest.error().message + "\n";
    return Exit::manifest;
  }
  const auto problems = manifest::check_references(context.instance, *manifest);
  for (const manifest::Problem& problem : problems) out += problem.text + "\n";
  return problems.empty() ? Exit::ok : Exit::manifest;
}

// 65 if any manifest has a problem, else the status of the first that could not be read.
int lint_all(const Context& context, const std::vector<std::string>& names) {
  std::string out;
  Exit status = Exit::ok;
  for (const std::string& name : names) {
    const Exit exit = lint(context, name, out);
    if (exit == Exit::manifest || status == Exit::ok) status = exit == Exit::ok ? status : exit;
  }
  if (auto written = write_all(STDOUT_FILENO, out, "standard output"); !written)
    return report(written.error());
  return static_cast<int>(status);
}

}  // namespace

void add_lint(CLI::App& app, Context& context) {
  const auto names = std::make_shared<std::vector<std::string>>();
  CLI::App* verb = add_verb(app, context, "lint", "Check manifests and print every problem with its place");
  verb->add_option("FILE", *names, "Manifests: paths of their files, or names")->required();
  verb->callback(
      [&context, names] { context.run = [&context, names] { return lint_all(context, *names); }; });
}

}  // namespace jail::cli
