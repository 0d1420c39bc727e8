// jail export NAME [GENERATION]: the tree for elsewhere, on standard output.
#include "jailer/views/export.h"

#include <unistd.h>

#include <memory>

#include "jailer/cli/generations.h"
#include "jailer/cli/verbs.h"
#include "jailer/tree/state.h"
#include "jailer/views/tree_of.h"
#include "supervisor/base/io.h"

namespace jail::cli {
namespace {

/// 1980-01-01: a time that no program takes for a mistake, and that no build depends on.
constexpr std::time_t fixed_time = 315532800;

struct Options {
  std::string name;
  unsigned long generation = 0;
  std::string format = "tar";
  bool with_secrets = false;
};

Result<void> put(std::string_view bytes) {
  return write_all(STDOUT_FILENO, bytes, "standard output");
}

Result<void> export_generation(const Context& context, const Options& options) {
  JAIL_CHECK(tree::demand_root("export a jail"));
  if (options.format == "tar" && ::isatty(STDOUT_FILENO) == 1)
    return with_hint(fail(Exit::usage, "an archive is nothing for a terminal"),
                     fmt::format("send it somewhere: jail export {0} > {0}.tar", options.name));
  JAIL_TRY(opened, open_generation(context, options.name, options.generation));
  JAIL_TRY(lock, lock_with_secrets(opened));
  JAIL_TRY(epoch, source_date_epoch());
  const views::ExportOptions how{options.with_secrets, epoch.value_or(fixed_time)};
  if (options.format == "mtree") return put(views::export_mtree(lock, how));
  JAIL_TRY(tree, views::tree_of(opened));
  return views::export_tar(lock, tree, how, put);
}

}  // namespace

void add_export(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, context, "export", "Write a jail's tree as an archive, or what mtree verifies it by");
  auto options = std::make_shared<Options>();
  verb->add_option("name", options->name, "The jail")->required();
  verb->add_option("generation", options->generation, "Which generation; default: the current one");
  verb->add_option("--format", options->format, "tar (the default) or mtree")
      ->check(CLI::IsMember({"tar", "mtree"}));
  verb->add_flag("--with-secrets", options->with_secrets, "With what the manifest marks as secret");
  verb->callback([&context, options] {
    context.run = [&context, options] {
      const auto done = export_generation(context, *options);
      return done ? 0 : report(done.error());
    };
  });
}

}  // namespace jail::cli
