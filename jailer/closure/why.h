// Why an entry is in a tree: the chains of reasons from it to the manifest. Works on the reasons alone, so
// that a plan and a lock are asked alike.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "jailer/closure/plan.h"
#include "supervisor/base/error.h"

namespace jail {

/// Path of each entry, and its reasons.
using Reasons = std::map<std::string, std::vector<Reason>>;

/// One step of a chain: `path` is there for `reason`; reason.by is the path of the next step, empty in the
/// last.
struct WhyStep {
  std::string path;
  Reason reason;
};

/// The entry that `wanted` means: its path (also in the other spelling of a merged /usr), else the only one
/// whose last component is `wanted`, else the only one whose last component begins so. Exit::answer_no if
/// there is none, or more.
[[nodiscard]] Result<std::string> find_entry(const Reasons& reasons, const std::string& wanted);

/// The shortest chain from `path` to the manifest, `path` first. Empty if the reasons do not lead there.
[[nodiscard]] std::vector<WhyStep> shortest_chain(const Reasons& reasons, const std::string& path);

struct Chains {
  std::vector<std::vector<WhyStep>> chains;  ///< the shortest first
  bool complete = true;                      ///< false: there are more
};

/// Every chain from `path` to the manifest that goes over no entry twice, but no more than `most`.
[[nodiscard]] Chains all_chains(const Reasons& reasons, const std::string& path, std::size_t most);

}  // namespace jail
