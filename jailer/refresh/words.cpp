// What makes a jail stale, in words.
#include "jailer/refresh/refresh.h"
#include "supervisor/base/quote.h"

namespace jail::refresh {

std::vector<std::string> paths_in_words(const LockDiff& diff) {
  static constexpr const char* words[] = {"would be added", "would be removed", "differs"};
  std::vector<std::string> lines;
  for (const EntryChange& change : diff.entries)
    lines.push_back(fmt::format("{} {}", escape(change.path), words[static_cast<std::size_t>(change.kind)]));
  return lines;
}

std::vector<std::string> in_words(const LockDiff& diff) {
  if (diff.entries.empty()) return {};
  if (diff.packages.empty()) return paths_in_words(diff);
  const auto version = [](const std::string& text) { return text.empty() ? "(not there)" : escape(text); };
  std::vector<std::string> lines;
  for (const PackageChange& change : diff.packages)
    lines.push_back(
        fmt::format("{} {} -> {}", escape(change.name), version(change.before), version(change.after)));
  return lines;
}

}  // namespace jail::refresh
