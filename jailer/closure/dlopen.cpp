// .note.dlopen: what objects of the tree say that they load at run time (UAPI.12).
#include <fnmatch.h>

#include <algorithm>
#include <array>

#include "jailer/closure/work.h"
#include "jailer/elf/dlopen_note.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

using elf::DlopenNeed;

constexpr std::array<std::string_view, 4> levels = {"none", "required", "recommended", "suggested"};

bool matches(const std::vector<std::string>& patterns, const std::string& feature) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    return ::fnmatch(pattern.c_str(), feature.c_str(), 0) == 0;
  });
}

/// Whether the priority alone brings it in.
bool within_level(const std::string& level, elf::DlopenPriority priority) {
  const auto most = std::find(levels.begin(), levels.end(), level) - levels.begin();
  return static_cast<std::ptrdiff_t>(priority) < most;
}

std::string in_words(const DlopenNeed& need) {
  std::string words = need.feature.empty() ? "" : "feature " + need.feature + ", ";
  return words + elf::to_text(need.priority);
}

/// The first of the alternatives that is there; as the caller would find it, by its own search paths.
void plan_need(Work& work, const DlopenCaller& caller, const DlopenNeed& need) {
  const manifest::Dlopen& wanted = work.manifest.dlopen;
  work.features.insert(need.feature);
  const bool asked = matches(wanted.include, need.feature);
  if (!asked && (matches(wanted.omit, need.feature) || !within_level(wanted.level, need.priority))) return;
  std::vector<std::string> reasons;
  for (const std::string& soname : need.sonames) {
    const auto closure =
        work.resolver.resolve_library(soname, caller.program, {.imports = true, .tried = false}, caller.path);
    if (!closure) {
      reasons.push_back(closure.error().message);
      continue;
    }
    const Reason why{"dlopen", caller.tree_path, fmt::format("{} ({})", soname, in_words(need))};
    plan_found_library(work, *closure, why, caller.place);
    return;
  }
  // What is merely recommended, and not on the host, the program does without there, too.
  if (!asked && need.priority != elf::DlopenPriority::required) return;
  work.out.problem(caller.place, fmt::format("{} loads at run time ({}): {}", quote(caller.tree_path),
                                             in_words(need), fmt::join(reasons, "; ")));
}

void plan_notes(Work& work, const DlopenCaller& caller) {
  for (const std::string& note : caller.notes) {
    const auto needs = elf::read_dlopen_note(note);
    if (!needs) {
      work.out.warn(caller.place, fmt::format("{}: its .note.dlopen is not as it must be ({}): passed over",
                                              quote(caller.tree_path), needs.error().message));
      continue;
    }
    for (const DlopenNeed& need : *needs) plan_need(work, caller, need);
  }
}

}  // namespace

void plan_dlopen_notes(Work& work) {
  while (!work.callers.empty()) {
    const DlopenCaller caller = std::move(work.callers.back());
    work.callers.pop_back();
    plan_notes(work, caller);
  }
}

void check_features(Work& work) {
  const auto& include = work.manifest.dlopen.include;
  for (std::size_t i = 0; i < include.size(); ++i) {
    const bool known = std::any_of(
        work.features.begin(), work.features.end(),
        [&](const std::string& feature) { return ::fnmatch(include[i].c_str(), feature.c_str(), 0) == 0; });
    if (!known)
      work.out.warn(
          fmt::format("dlopen.include[{}]", i),
          fmt::format("nothing in the tree has a feature {}; there are: {}", quote(include[i]),
                      work.features.empty() ? "none" : fmt::format("{}", fmt::join(work.features, ", "))));
  }
}

}  // namespace jail
