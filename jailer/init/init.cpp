#include "jailer/init/init.h"

#include <algorithm>
#include <map>

#include "jailer/closure/accounts.h"
#include "jailer/init/place.h"
#include "jailer/init/plan.h"
#include "jailer/init/program.h"
#include "jailer/init/units.h"
#include "jailer/manifest/reader.h"
#include "jailer/tree/hash.h"
#include "jailer/tree/state.h"
#include "supervisor/base/quote.h"

namespace jail::init {
namespace {

/// Carries a plan out. Whatever happens, the record knows of all that was made.
class Maker {
 public:
  Maker(const Plan& plan, const Records& records, const manifest::Manifest& manifest, const Options& options)
      : plan_(plan), records_(records), manifest_(manifest), options_(options) {}

  Result<void> run() {
    JAIL_CHECK(write_record());
    JAIL_CHECK(make_accounts());
    JAIL_TRY(accounts, read_accounts("/"));
    JAIL_CHECK(find_groups(accounts));
    for (const Step& step : plan_.steps) JAIL_CHECK(make(step));
    return {};
  }

 private:
  Result<void> write_record() {
    JAIL_TRY(before, records_.load(plan_.name));
    Record record = before.value_or(Record{});
    for (const std::string& name : plan_.accounts.groups) note(record, {"group", name, {}});
    for (const std::string& name : plan_.accounts.users) note(record, {"user", name, {}});
    for (const Step& step : plan_.steps) {
      if (step.outcome == Outcome::made) {
        note(record, {step.record_kind(), step.path,
                      step.record_kind() == "file" ? sha256_hex(step.bytes) : std::string()});
      } else if (step.kind == "unit" && step.outcome == Outcome::there) {
        // Masked for another jail of ours: it is to stay so as long as one of the two wants it.
        JAIL_TRY(other, records_.shared_with(plan_.name, "unit", step.path));
        if (!other.empty()) note(record, {"unit", step.path, {}});
      }
    }
    return records_.save(plan_.name, record);
  }

  /// What the record says of the same thing from an earlier run no longer holds: it is not there.
  static void note(Record& record, const Made& made) {
    std::erase_if(record.made,
                  [&](const Made& each) { return each.kind == made.kind && each.what == made.what; });
    record.made.push_back(made);
  }

  Result<void> make_accounts() {
    for (const std::string& name : plan_.accounts.groups) {
      JAIL_CHECK(demand_program("groupadd", groupadd_words(name)));
      options_.tell({"group", name, Outcome::made, {}});
    }
    for (const std::string& name : plan_.accounts.users) {
      JAIL_TRY(accounts, read_accounts("/"));
      JAIL_CHECK(demand_program("useradd", useradd_words(accounts, name)));
      options_.tell({"user", name, Outcome::made, "a system user who cannot log in"});
    }
    return {};
  }

  Result<void> find_groups(const Accounts& accounts) {
    for (const Step& step : plan_.steps) {
      const auto gid = group_id(accounts, step.group);
      if (!gid && step.outcome == Outcome::made)
        return tl::unexpected(no_such_group(step.group, manifest_.packages));
      groups_[step.group] = gid.value_or(0);
    }
    return {};
  }

  Result<void> make(const Step& step) {
    if (step.outcome != Outcome::made) {
      options_.tell({step.kind, step.path, step.outcome, step.note});
      return {};
    }
    const gid_t group = groups_[step.group];
    JAIL_TRY(made, step.record_kind() == "directory" ? make_directory(step.path, step.mode, group)
                   : step.record_kind() == "unit"    ? make_link(step.path, step.bytes)
                                                     : make_file(step.path, step.bytes, step.mode, group));
    if (!made)
      return with_hint(fail(Exit::busy, "{}: somebody has made it meanwhile", quote(step.path)),
                       "run jail init again");
    options_.tell({step.kind, step.path, Outcome::made, step.note});
    return {};
  }

  const Plan& plan_;
  const Records& records_;
  const manifest::Manifest& manifest_;
  const Options& options_;
  std::map<std::string, gid_t> groups_;
};

void tell_dry(const Plan& plan, const Options& options) {
  for (const std::string& name : plan.accounts.groups) options.tell({"group", name, Outcome::made, {}});
  for (const std::string& name : plan.accounts.users) options.tell({"user", name, Outcome::made, {}});
  for (const Step& step : plan.steps) options.tell({step.kind, step.path, step.outcome, step.note});
}

/// The units that are masked, or would be, do not run any longer.
Result<void> stop_units(const Plan& plan, const Options& options) {
  std::vector<std::string> units;
  bool masked = false;
  for (const Step& step : plan.steps) {
    if (step.kind != "unit" || step.outcome == Outcome::kept) continue;
    units.push_back(step.path.substr(step.path.rfind('/') + 1));
    masked = masked || step.outcome == Outcome::made;
  }
  JAIL_TRY(running, active(units));
  if (!options.dry_run) {
    if (masked) JAIL_CHECK(reread_units());
    JAIL_CHECK(stop(running));
  }
  for (const std::string& unit : running) options.tell({"unit", unit, Outcome::stopped, {}});
  return {};
}

}  // namespace

Result<std::vector<std::string>> lay_out(const Instance& instance, const std::string& name_or_path,
                                         const Options& options) {
  JAIL_CHECK(tree::demand_root("lay out a configuration"));
  JAIL_TRY(manifest, manifest::load(instance, name_or_path));
  JAIL_TRY(example, load_example(instance, name_or_path, manifest));
  JAIL_TRY(records, Records::open(instance, !options.dry_run));
  JAIL_TRY(accounts, read_accounts("/"));
  JAIL_TRY(plan, make_plan(instance, name_or_path, manifest, example, accounts, options));
  if (options.dry_run) {
    tell_dry(plan, options);
  } else {
    JAIL_CHECK(Maker(plan, records, manifest, options).run());
  }
  JAIL_CHECK(stop_units(plan, options));
  for (const Item& item : plan.others) options.tell(item);
  return plan.next;
}

}  // namespace jail::init
