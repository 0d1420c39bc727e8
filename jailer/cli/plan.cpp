// jail plan NAME: what a build would put into the tree, and why. Reads, and writes nothing.
#include <sys/sysmacros.h>

#include <memory>

#include "jailer/cli/format.h"
#include "jailer/cli/verbs.h"
#include "jailer/closure/plan_builder.h"
#include "jailer/closure/planner.h"
#include "jailer/manifest/reader.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail::cli {
namespace {

/// "-0755 0:0 /usr/sbin/named  binary tree.binaries[0]"; a source is named where it has another path.
std::string line_of(const Entry& entry) {
  std::string line = fmt::format("{}{:04o} {}:{} {}", type_letter(entry.type), entry.mode, entry.uid,
                                 entry.gid, escape(entry.path));
  if (entry.type == EntryType::symlink) line += " -> " + escape(entry.target);
  if (entry.type == EntryType::character_device || entry.type == EntryType::block_device)
    line += fmt::format(" ({}:{})", major(entry.device), minor(entry.device));
  if (!entry.why.empty()) line += "  " + escape(in_words(entry.why.front()));
  if (entry.content) line += "  (generated)";
  if (!entry.source.empty() && entry.source != entry.path) line += "  from " + escape(entry.source);
  return line + "\n";
}

int run_plan(const Context& context, const std::string& name) {
  const auto manifest = manifest::load(context.instance, name);
  if (!manifest) return report(manifest.error());
  const auto plan = make_plan(context.instance, *manifest, context.root);
  if (!plan) return report(plan.error());
  if (!context.quiet) {
    for (const std::string& warning : plan->warnings)
      fmt::print(stderr, "jail: warning: {}\n", escape(warning));
    for (const std::string& note : plan->notes) fmt::print(stderr, "jail: note: {}\n", escape(note));
  }
  std::string text;
  if (context.json) {
    text = to_json(*plan);
  } else {
    for (const auto& [path, entry] : plan->entries) text += line_of(entry);
  }
  const auto written = write_all(STDOUT_FILENO, text, "standard output");
  return written ? 0 : report(written.error());
}

}  // namespace

void add_plan(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "plan", "Print what a build would put into the tree, and why");
  auto name = std::make_shared<std::string>();
  verb->add_option("name", *name, "The jail, or the path of a manifest")->required();
  verb->callback([&context, name] { context.run = [&context, name] { return run_plan(context, *name); }; });
}

}  // namespace jail::cli
