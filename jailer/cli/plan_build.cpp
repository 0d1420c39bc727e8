#include "jailer/cli/plan_build.h"

#include <optional>

#include "jailer/closure/planner.h"
#include "jailer/digest/digest.h"
#include "jailer/manifest/reader.h"
#include "jailer/manifest/search.h"
#include "jailer/policy/policy.h"
#include "jailer/tree/parallel.h"

namespace jail::cli {

namespace {

/// The filter of a policy, which libseccomp takes longer to make than all else of a plan takes: out of the
/// memo, or made beside the plan.
class FilterMaker {
 public:
  FilterMaker(policy::Policy policy, Memo* memo) : memo_(memo) {
    std::string text = policy.packet_sockets ? "packet" : "";
    for (const std::string& call : policy.calls) text += " " + call;
    name_ = "filter " + sha256_hex(text);
    if (memo != nullptr) known_ = memo->find(name_);
    if (known_ == nullptr)
      made_ = tree::in_background([policy = std::move(policy)] { return policy::compile(policy); });
  }
  Result<std::string> result() {
    if (known_ != nullptr) return *known_;
    auto filter = made_.get();
    if (filter && memo_ != nullptr) memo_->put(name_, *filter);
    return filter;
  }

 private:
  Memo* memo_;
  std::string name_;
  const std::string* known_ = nullptr;
  std::future<Result<std::string>> made_;
};

}  // namespace

Result<Planned> plan_build(const Context& context, const std::string& name, Looks* looks, Memo* memo) {
  if (looks != nullptr) manifest::add_looks(context.instance, name, *looks);
  JAIL_TRY(manifest, manifest::load(context.instance, name));
  auto policy = read_policy(context.instance, manifest);
  std::optional<FilterMaker> filter_maker;
  if (policy) filter_maker.emplace(std::move(*policy), memo);
  JAIL_TRY(plan, make_plan(context.instance, manifest, context.root, looks, memo));
  JAIL_TRY(accounts, read_accounts(context.root));
  JAIL_TRY(launch, make_launch_spec(context.instance, manifest, accounts));
  if (!filter_maker) return tl::unexpected(std::move(policy).error());
  JAIL_TRY(filter, filter_maker->result());
  std::vector<manifest::FrozenProbe> probes;
  for (const PlannedProbe& probe : plan.probes) probes.push_back({probe.bundle, probe.name, probe.run});
  Frozen frozen{manifest::to_json(manifest, probes), to_json(launch), std::move(filter)};
  return Planned{std::move(plan), std::move(frozen), std::move(manifest)};
}

}  // namespace jail::cli
