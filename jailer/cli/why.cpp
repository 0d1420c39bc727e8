// jail why NAME PATH: the shortest chain of reasons from the manifest to an entry of the tree. Asks the
// current generation's lock; where nothing is built yet, a fresh plan.
#include "jailer/closure/why.h"

#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/verbs.h"
#include "jailer/closure/plan_builder.h"
#include "jailer/closure/planner.h"
#include "jailer/manifest/reader.h"
#include "jailer/tree/lock.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/spec/generation.h"

namespace jail::cli {
namespace {

Result<Reasons> reasons_of_lock(const generation::Opened& opened) {
  JAIL_TRY(lock, lock_of(opened));
  Reasons reasons;
  for (LockEntry& entry : lock.entries) reasons[entry.path] = std::move(entry.why);
  return reasons;
}

Result<Reasons> reasons_of_plan(const Context& context, const std::string& name) {
  JAIL_TRY(manifest, manifest::load(context.instance, name));
  JAIL_TRY(plan, make_plan(context.instance, manifest, context.root));
  Reasons reasons;
  for (auto& [path, entry] : plan.entries) reasons[path] = std::move(entry.why);
  return reasons;
}

Result<Reasons> reasons_for(const Context& context, const std::string& name_or_path) {
  JAIL_TRY(name, jail_name(name_or_path));
  const auto opened = generation::open_current(context.instance, name);
  if (opened) return reasons_of_lock(*opened);
  if (opened.error().exit != Exit::no_input) return tl::unexpected(opened.error());
  return reasons_of_plan(context, name_or_path);
}

std::string as_json(const std::vector<WhyStep>& chain) {
  nlohmann::json steps = nlohmann::json::array();
  for (const WhyStep& step : chain) {
    steps.push_back({{"path", step.path},
                     {"kind", step.reason.kind},
                     {"by", step.reason.by},
                     {"detail", step.reason.detail}});
  }
  const nlohmann::json object = {{"version", 1}, {"chain", steps}};
  return object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string as_text(const std::vector<WhyStep>& chain) {
  std::string text = escape(chain.front().path) + "\n";
  for (const WhyStep& step : chain) text += "  " + escape(in_words(step.reason)) + "\n";
  return text;
}

int run_why(const Context& context, const std::string& name, const std::string& wanted) {
  const auto reasons = reasons_for(context, name);
  if (!reasons) return report(reasons.error());
  const auto path = find_entry(*reasons, wanted);
  if (!path) return report(path.error());
  const auto chain = shortest_chain(*reasons, *path);
  if (chain.empty())
    return report(Error{Exit::internal, quote(*path) + ": its reasons do not lead to the manifest", {}});
  const auto written =
      write_all(STDOUT_FILENO, context.json ? as_json(chain) : as_text(chain), "standard output");
  return written ? 0 : report(written.error());
}

}  // namespace

void add_why(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "why", "Say why a file is in the tree");
  auto name = std::make_shared<std::string>();
  auto path = std::make_shared<std::string>();
  verb->add_option("name", *name, "The jail, or the path of a manifest")->required();
  verb->add_option("path", *path, "A path in the tree, or the end of one")->required();
  verb->callback([&context, name, path] {
    context.run = [&context, name, path] { return run_why(context, *name, *path); };
  });
}

}  // namespace jail::cli
