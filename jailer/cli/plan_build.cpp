#include "jailer/cli/plan_build.h"

#include "jailer/closure/planner.h"
#include "jailer/manifest/reader.h"
#include "jailer/manifest/search.h"
#include "jailer/policy/policy.h"
#include "jailer/tree/parallel.h"

namespace jail::cli {

Result<Planned> plan_build(const Context& context, const std::string& name, Looks* looks) {
  if (looks != nullptr) manifest::add_looks(context.instance, name, *looks);
  JAIL_TRY(manifest, manifest::load(context.instance, name));
  // Beside the plan: libseccomp takes as long as that.
  auto filter_made = tree::in_background([&] { return compile_filter(context.instance, manifest); });
  JAIL_TRY(plan, make_plan(context.instance, manifest, context.root, looks));
  JAIL_TRY(accounts, read_accounts(context.root));
  JAIL_TRY(launch, make_launch_spec(context.instance, manifest, accounts));
  JAIL_TRY(filter, filter_made.get());
  std::vector<manifest::FrozenProbe> probes;
  for (const PlannedProbe& probe : plan.probes) probes.push_back({probe.bundle, probe.name, probe.run});
  Frozen frozen{manifest::to_json(manifest, probes), to_json(launch), std::move(filter)};
  return Planned{std::move(plan), std::move(frozen), std::move(manifest)};
}

}  // namespace jail::cli
