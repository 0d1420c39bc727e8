// What makes a jail stale, in words.
#include <set>

#include "jailer/refresh/refresh.h"
#include "supervisor/base/quote.h"

namespace jail::refresh {

namespace {

std::string in_words(const EntryChange& change) {
  static constexpr const char* words[] = {"would be added", "would be removed", "differs"};
  return fmt::format("{} {}", escape(change.path), words[static_cast<std::size_t>(change.kind)]);
}

}  // namespace

std::vector<std::string> paths_in_words(const LockDiff& diff) {
  std::vector<std::string> lines;
  for (const EntryChange& change : diff.entries) lines.push_back(in_words(change));
  return lines;
}

std::vector<std::string> in_words(const LockDiff& diff) {
  if (diff.entries.empty()) return {};
  if (diff.packages.empty()) return paths_in_words(diff);
  const auto version = [](const std::string& text) { return text.empty() ? "(not there)" : escape(text); };
  std::vector<std::string> lines;
  std::set<std::string_view> packages;
  for (const PackageChange& change : diff.packages) {
    packages.insert(change.name);
    lines.push_back(
        fmt::format("{} {} -> {}", escape(change.name), version(change.before), version(change.after)));
  }
  for (const EntryChange& change : diff.entries)
    if (change.copied && !packages.contains(change.package)) lines.push_back(in_words(change));
  return lines;
}

}  // namespace jail::refresh
