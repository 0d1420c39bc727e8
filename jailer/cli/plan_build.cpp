#include "jailer/cli/plan_build.h"

#include "jailer/closure/planner.h"
#include "jailer/manifest/reader.h"
#include "jailer/manifest/search.h"
#include "jailer/policy/policy.h"

namespace jail::cli {

Result<Planned> plan_build(const Context& context, const std::string& name, Looks* looks) {
  if (looks != nullptr) manifest::add_looks(context.instance, name, *looks);
  JAIL_TRY(manifest, manifest::load(context.instance, name));
  JAIL_TRY(plan, make_plan(context.instance, manifest, context.root, looks));
  JAIL_TRY(accounts, read_accounts(context.root));
  JAIL_TRY(launch, make_launch_spec(context.instance, manifest, accounts));
  JAIL_TRY(filter, compile_filter(context.instance, manifest));
  Frozen frozen{manifest::to_json(manifest), to_json(launch), std::move(filter)};
  return Planned{std::move(plan), std::move(frozen), std::move(manifest)};
}

}  // namespace jail::cli
