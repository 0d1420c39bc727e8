// jail graph NAME [GENERATION]: what is in a jail and why, at a glance.
#include "jailer/views/graph.h"

#include <memory>

#include "jailer/cli/generations.h"
#include "jailer/cli/verbs.h"
#include "jailer/views/needed.h"
#include "supervisor/base/io.h"

namespace jail::cli {
namespace {

struct Format {
  std::string_view name;
  std::string (*paint)(const Lock&);
};
constexpr Format formats[] = {
    {"text", views::graph_text}, {"svg", views::graph_svg}, {"dot", views::graph_dot}};

struct Options {
  std::string name;
  unsigned long generation = 0;
  std::string format = "text";
};

Result<void> run_graph(const Context& context, const Options& options) {
  JAIL_TRY(opened, open_generation(context, options.name, options.generation));
  JAIL_TRY(lock, views::lock_with_needed(opened));
  for (const Format& format : formats)
    if (format.name == options.format) return write_all(STDOUT_FILENO, format.paint(lock), "standard output");
  return fail(Exit::usage, "{} is no format", options.format);
}

}  // namespace

void add_graph(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "graph", "Draw what is in a jail's tree, and why");
  auto options = std::make_shared<Options>();
  verb->add_option("name", options->name, "The jail")->required();
  verb->add_option("generation", options->generation, "Which generation; default: the current one");
  verb->add_option("--format", options->format, "text (the default), svg, or dot for graphviz")
      ->check(CLI::IsMember({"text", "svg", "dot"}));
  verb->callback([&context, options] {
    context.run = [&context, options] {
      const auto done = run_graph(context, *options);
      return done ? 0 : report(done.error());
    };
  });
}

}  // namespace jail::cli
