// manifest + source root -> plan. Reads the source root, writes nothing, runs nothing.
#pragma once

#include "jailer/closure/plan.h"
#include "jailer/manifest/model.h"
#include "jailer/witness/looks.h"
#include "jailer/witness/memo.h"
#include "supervisor/base/error.h"
#include "supervisor/spec/instance.h"

namespace jail {

/// The plan for `manifest` with sources from `root` ("/" or another system's root directory). `instance` is
/// where bundles are found. A missing library, user, device or file is an error that names the manifest's
/// line, the chain that needs it and where it was looked for; all such problems at once in one Error. What
/// was looked at in the root is noted in `looks`. `memo` may save work, where there are `looks`, and gets
/// what the next plan of this jail can use.
[[nodiscard]] Result<Plan> make_plan(const Instance& instance, const manifest::Manifest& manifest,
                                     const std::string& root, Looks* looks = nullptr, Memo* memo = nullptr);

/// The plan as JSON (`jail plan --json`), sorted, ending in a newline.
[[nodiscard]] std::string to_json(const Plan& plan);

/// User and group files of a root, read as files (never by NSS, which would load code).
struct UserEntry {
  std::string name;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::string gecos, home, shell;
};
struct GroupEntry {
  std::string name;
  std::uint32_t gid = 0;
  std::vector<std::string> members;
};
struct Accounts {
  std::vector<UserEntry> users;
  std::vector<GroupEntry> groups;
  [[nodiscard]] const UserEntry* user(std::string_view name) const;
  [[nodiscard]] const GroupEntry* group(std::string_view name) const;
  [[nodiscard]] const GroupEntry* group(std::uint32_t gid) const;
};
[[nodiscard]] Result<Accounts> read_accounts(const std::string& root);

}  // namespace jail
