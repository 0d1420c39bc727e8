#include "jailer/cli/plan_build.h"

#include "jailer/closure/planner.h"
#include "jailer/manifest/reader.h"
#include "jailer/policy/policy.h"

namespace jail::cli {

Result<Planned> plan_build(const Context& context, const std::string& name) {
  JAIL_TRY(manifest, manifest::load(context.instance, name));
  JAIL_TRY(plan, make_plan(context.instance, manifest, context.root));
  JAIL_TRY(accounts, read_accounts(context.root));
  JAIL_TRY(launch, make_launch_spec(context.instance, manifest, accounts));
  JAIL_TRY(filter, compile_filter(context.instance, manifest));
  std::vector<std::string> manifests;
  for (const manifest::Source& source : manifest.sources) manifests.push_back(source.path);
  std::vector<std::string> live;
  for (const manifest::Config& config : manifest.configs) live.push_back(config.to);
  return Planned{std::move(plan), Frozen{manifest::to_json(manifest), to_json(launch), std::move(filter)},
                 std::move(manifests), std::move(live)};
}

}  // namespace jail::cli
