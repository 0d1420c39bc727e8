// jail sbom NAME [GENERATION]: what is in a tree, as a bill of materials.
#include "jailer/views/sbom.h"

#include <sys/stat.h>

#include <cerrno>
#include <memory>

#include "jailer/cli/generations.h"
#include "jailer/cli/verbs.h"
#include "jailer/views/needed.h"
#include "jailer/views/tree_of.h"
#include "supervisor/base/io.h"

namespace jail::cli {
namespace {

struct Options {
  std::string name;
  unsigned long generation = 0;
  std::string format = "cyclonedx";
};

/// SOURCE_DATE_EPOCH, or else when the generation was built.
Result<std::time_t> created(const generation::Opened& opened) {
  JAIL_TRY(epoch, source_date_epoch());
  if (epoch) return *epoch;
  struct stat status {};
  if (::fstat(opened.dir.get(), &status) != 0)
    return fail_errno(Exit::io, errno, "{}: cannot stat", opened.path);
  return status.st_mtime;
}

Result<std::string> make(const Context& context, const Options& options) {
  JAIL_TRY(opened, open_generation(context, options.name, options.generation));
  JAIL_TRY(lock, views::lock_with_needed(opened));
  JAIL_TRY(time, created(opened));
  const views::SbomInput input{lock, opened.number, time};
  if (options.format == "cyclonedx") return views::cyclonedx(input);
  JAIL_TRY(tree, views::tree_of(opened));
  return views::spdx(input, tree);
}

int run_sbom(const Context& context, const Options& options) {
  const auto text = make(context, options);
  if (!text) return report(text.error());
  const auto written = write_all(STDOUT_FILENO, *text, "standard output");
  return written ? 0 : report(written.error());
}

}  // namespace

void add_sbom(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "sbom", "Print what is in a jail's tree as a bill of materials");
  auto options = std::make_shared<Options>();
  verb->add_option("name", options->name, "The jail")->required();
  verb->add_option("generation", options->generation, "Which generation; default: the current one");
  verb->add_option("--format", options->format, "cyclonedx (1.5, the default) or spdx (2.3); both are JSON")
      ->check(CLI::IsMember({"cyclonedx", "spdx"}));
  verb->callback(
      [&context, options] { context.run = [&context, options] { return run_sbom(context, *options); }; });
}

}  // namespace jail::cli
