// jail show NAME: the merged manifest, and where each value was written.
#include <unistd.h>

#include <memory>

#include "jailer/cli/verbs.h"
#include "jailer/manifest/reader.h"
#include "jailer/manifest/render.h"
#include "supervisor/base/io.h"

namespace jail::cli {
namespace {

struct Options {
  std::string name;
  bool all = false;
};

int show(const Context& context, const Options& options) {
  const auto manifest = manifest::load(context.instance, options.name);
  if (!manifest) return report(manifest.error());
  const std::string text = context.json ? manifest::to_json(*manifest)
                                        : manifest::to_text(*manifest, options.all || context.verbose);
  if (auto written = write_all(STDOUT_FILENO, text, "standard output"); !written)
    return report(written.error());
  return 0;
}

}  // namespace

void add_show(CLI::App& app, Context& context) {
  const auto options = std::make_shared<Options>();
  CLI::App* verb =
      add_verb(app, context, "show", "Show the merged manifest and where each value was written");
  verb->add_option("NAME", options->name, "A manifest: its name, or the path of its file")->required();
  verb->add_flag("--all", options->all, "Show defaults, too (as --verbose does)");
  verb->callback(
      [&context, options] { context.run = [&context, options] { return show(context, *options); }; });
}

}  // namespace jail::cli
