#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <tuple>

#include "jailer/closure/source_root.h"
#include "jailer/views/format.h"
#include "jailer/views/graph.h"
#include "jailer/views/inventory.h"
#include "supervisor/base/quote.h"

namespace jail::views {
namespace {

constexpr std::size_t one_by_one = 6;  ///< more leaves than that in one directory are one line

/// One line, and what is below it.
struct Node {
  std::string label;
  std::uint64_t bytes = 0;  ///< with all below
  std::size_t entries = 0;
  const LockEntry* entry = nullptr;
  bool loaded = false;  ///< as a library or an interpreter
  std::vector<Node> below;
};

bool shown(const LockEntry& entry) {
  return entry.type != EntryType::directory && entry.type != EntryType::symlink;
}

/// The reason that the shortest way to the manifest begins with, for each entry that is shown.
class Ways {
 public:
  explicit Ways(const Lock& lock) {
    std::deque<const LockEntry*> next;
    std::vector<std::pair<const LockEntry*, const Reason*>> asked_for;
    for (const LockEntry& entry : lock.entries) {
      if (!shown(entry)) continue;
      for (const Reason& reason : entry.why) needed_by_[reason.by].emplace_back(&entry, &reason);
      const auto direct = std::find_if(entry.why.begin(), entry.why.end(),
                                       [](const Reason& reason) { return reason.by.empty(); });
      if (direct != entry.why.end()) asked_for.emplace_back(&entry, &*direct);
    }
    std::stable_sort(asked_for.begin(), asked_for.end(),
                     [](const auto& a, const auto& b) { return rank(*a.second) < rank(*b.second); });
    for (const auto& [entry, reason] : asked_for) reach(*entry, nullptr, *reason, next);
    spread(next);
    // What a reason leads to that is not shown (a directory, a link), or nowhere.
    for (const LockEntry& entry : lock.entries) {
      if (!shown(entry) || reached_.contains(&entry) || entry.why.empty()) continue;
      reach(entry, nullptr, entry.why.front(), next);
      spread(next);
    }
  }

  [[nodiscard]] Node node(const LockEntry& entry, const Reason& reason) const {
    Node made;
    made.entry = &entry;
    made.entries = 1;
    made.loaded = reason.kind == "needed" || reason.kind == "interpreter";
    made.bytes = entry.size;
    const std::string package = entry.package.empty() ? "" : "  [" + entry.package + "]";
    made.label = fmt::format("{}  {}{}  ({})", escape(entry.path), size_of(entry), escape(package),
                             escape(in_a_word(reason)));
    add_below(made, &entry);
    return made;
  }

  /// Those that the manifest asks for, by the kind of reason.
  [[nodiscard]] std::map<std::string, std::vector<std::pair<const LockEntry*, const Reason*>>> roots() const {
    std::map<std::string, std::vector<std::pair<const LockEntry*, const Reason*>>> groups;
    const auto found = below_.find(nullptr);
    if (found == below_.end()) return groups;
    for (const auto& [entry, reason] : found->second)
      groups[reason->kind == "bundle" ? reason->detail : reason->kind].emplace_back(entry, reason);
    return groups;
  }

 private:
  static std::string in_a_word(const Reason& reason) {
    return reason.detail.empty()     ? reason.kind
           : reason.kind == "bundle" ? reason.detail
                                     : reason.kind + " " + reason.detail;
  }

  /// Programs before all else and in the manifest's order: what two need stands below the first.
  static std::tuple<bool, std::size_t, std::string_view> rank(const Reason& reason) {
    return {reason.kind != "binary", reason.detail.size(), reason.detail};
  }

  void reach(const LockEntry& entry, const LockEntry* by, const Reason& reason,
             std::deque<const LockEntry*>& next) {
    if (!reached_.insert(&entry).second) return;
    below_[by].emplace_back(&entry, &reason);
    next.push_back(&entry);
  }

  void spread(std::deque<const LockEntry*>& next) {
    while (!next.empty()) {
      const LockEntry* here = next.front();
      next.pop_front();
      const auto found = needed_by_.find(here->path);
      if (found == needed_by_.end()) continue;
      for (const auto& [entry, reason] : found->second) reach(*entry, here, *reason, next);
    }
  }

  void add_below(Node& parent, const LockEntry* entry) const {
    const auto found = below_.find(entry);
    if (found == below_.end()) return;
    for (const auto& [child, reason] : found->second) {
      parent.below.push_back(node(*child, *reason));
      parent.bytes += parent.below.back().bytes;
      parent.entries += parent.below.back().entries;
    }
  }

  std::map<std::string, std::vector<std::pair<const LockEntry*, const Reason*>>> needed_by_;
  std::map<const LockEntry*, std::vector<std::pair<const LockEntry*, const Reason*>>> below_;
  std::set<const LockEntry*> reached_;
};

std::string counted(std::size_t count, const char* one, const char* many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

/// Leaves of one directory that are many become one line.
void fold(std::vector<Node>& nodes) {
  std::map<std::string, std::vector<Node>> leaves;
  std::vector<Node> kept;
  for (Node& node : nodes) {
    if (node.below.empty() && node.entry != nullptr && !node.loaded)
      leaves[parent_path(node.entry->path)].push_back(std::move(node));
    else
      kept.push_back(std::move(node));
  }
  for (auto& [directory, list] : leaves) {
    if (list.size() <= one_by_one) {
      std::move(list.begin(), list.end(), std::back_inserter(kept));
      continue;
    }
    Node folded;
    for (const Node& leaf : list) {
      folded.bytes += leaf.bytes;
      folded.entries += leaf.entries;
    }
    folded.label = fmt::format("{}/  {} files  {}", escape(directory == "/" ? "" : directory), list.size(),
                               human_size(folded.bytes));
    kept.push_back(std::move(folded));
  }
  std::stable_sort(kept.begin(), kept.end(), [](const Node& a, const Node& b) { return a.bytes > b.bytes; });
  nodes = std::move(kept);
}

void print(std::string& text, std::vector<Node> nodes, const std::string& indent) {
  fold(nodes);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const bool last = i + 1 == nodes.size();
    Node& node = nodes[i];
    text += indent + (last ? "└── " : "├── ") + node.label;
    if (!node.below.empty() && node.entry != nullptr)
      text += fmt::format("  with what it brings in: {}", human_size(node.bytes));
    text += "\n";
    print(text, std::move(node.below), indent + (last ? "    " : "│   "));
  }
}

}  // namespace

std::string graph_text(const Lock& lock) {
  const Ways ways(lock);
  std::vector<Node> groups;
  std::uint64_t bytes = 0;
  for (const auto& [kind, roots] : ways.roots()) {
    Node& group = groups.emplace_back();
    for (const auto& [entry, reason] : roots) {
      group.below.push_back(ways.node(*entry, *reason));
      group.bytes += group.below.back().bytes;
      group.entries += group.below.back().entries;
    }
    group.label = fmt::format("{}: {}, {}", escape(kind), counted(group.entries, "entry", "entries"),
                              human_size(group.bytes));
    bytes += group.bytes;
  }
  std::size_t packages = 0;
  for (const Package& package : inventory_of(lock, true).packages) packages += package.name.empty() ? 0 : 1;
  std::size_t files = 0;
  std::size_t directories = 0;
  std::size_t links = 0;
  for (const LockEntry& entry : lock.entries) {
    files += entry.type == EntryType::file ? 1 : 0;
    directories += entry.type == EntryType::directory ? 1 : 0;
    links += entry.type == EntryType::symlink ? 1 : 0;
  }
  std::string text = fmt::format("{}  {} from {}, {}; {} and {} besides\n", escape(lock.name),
                                 counted(files, "file", "files"), counted(packages, "package", "packages"),
                                 human_size(bytes), counted(directories, "directory", "directories"),
                                 counted(links, "link", "links"));
  print(text, std::move(groups), "");
  return text;
}

}  // namespace jail::views
