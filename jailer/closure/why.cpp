#include "jailer/closure/why.h"

#include <algorithm>
#include <deque>

#include "jailer/closure/source_root.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

constexpr std::size_t shown_candidates = 10;
constexpr std::size_t most_beginnings = 20'000;  ///< of chains at a time: all memory that this takes

template <class Test>
std::vector<std::string> paths_that(const Reasons& reasons, Test test) {
  std::vector<std::string> found;
  for (const auto& [path, why] : reasons) {
    if (test(path)) found.push_back(path);
  }
  return found;
}

}  // namespace

Result<std::string> find_entry(const Reasons& reasons, const std::string& wanted) {
  const std::string path = normal_path(wanted);
  if (wanted.starts_with('/')) {
    for (const std::string& spelling : {path, "/usr" + path}) {
      if (reasons.count(spelling) != 0) return spelling;
    }
    return fail(Exit::answer_no, "{} is not in the tree", quote(wanted));
  }
  auto found = paths_that(reasons, [&](const std::string& p) { return p != "/" && p.ends_with(path); });
  if (found.empty())
    found = paths_that(reasons, [&](const std::string& p) { return base_name(p).starts_with(wanted); });
  if (found.size() == 1) return found.front();
  if (found.empty()) return fail(Exit::answer_no, "nothing in the tree is called {}", quote(wanted));
  const std::size_t shown = std::min(found.size(), shown_candidates);
  std::string list;
  for (std::size_t i = 0; i < shown; ++i) list += "\n  " + escape(found[i]);
  if (found.size() > shown) list += fmt::format("\n  and {} more", found.size() - shown);
  return fail(Exit::answer_no, "{} could be:{}", quote(wanted), list);
}

std::vector<WhyStep> shortest_chain(const Reasons& reasons, const std::string& path) {
  // Breadth first, from the entry to whatever needs it; `from` remembers the way.
  std::map<std::string, WhyStep> from;
  std::deque<std::string> next{path};
  std::map<std::string, bool> seen{{path, true}};
  const auto chain_to = [&](const std::string& last, const Reason& reason) {
    std::vector<WhyStep> chain{{last, reason}};
    for (std::string at = last; at != path;) {
      const WhyStep& step = from.at(at);
      chain.insert(chain.begin(), step);
      at = step.path;
    }
    return chain;
  };
  while (!next.empty()) {
    const std::string here = std::move(next.front());
    next.pop_front();
    const auto entry = reasons.find(here);
    if (entry == reasons.end()) continue;
    for (const Reason& reason : entry->second) {
      if (reason.by.empty()) return chain_to(here, reason);
    }
    for (const Reason& reason : entry->second) {
      if (!seen.emplace(reason.by, true).second) continue;
      from[reason.by] = {here, reason};
      next.push_back(reason.by);
    }
  }
  return {};
}

Chains all_chains(const Reasons& reasons, const std::string& path, std::size_t most) {
  // Breadth first over beginnings of chains, so that the shortest are the first.
  using Chain = std::vector<WhyStep>;
  Chains all;
  std::deque<std::pair<std::string, Chain>> next{{path, {}}};
  while (!next.empty()) {
    const auto [here, chain] = std::move(next.front());
    next.pop_front();
    const auto entry = reasons.find(here);
    if (entry == reasons.end()) continue;
    for (const Reason& reason : entry->second) {
      const bool been_there =
          reason.by == here ||
          std::any_of(chain.begin(), chain.end(), [&](const auto& step) { return step.path == reason.by; });
      if (been_there) continue;
      if (all.chains.size() == most || next.size() == most_beginnings) {
        all.complete = false;
        return all;
      }
      Chain longer = chain;
      longer.push_back({here, reason});
      if (reason.by.empty())
        all.chains.push_back(std::move(longer));
      else
        next.emplace_back(reason.by, std::move(longer));
    }
  }
  return all;
}

}  // namespace jail
