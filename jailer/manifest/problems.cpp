#include "jailer/manifest/problems.h"

#include <limits>

namespace jail::manifest {

std::string place(const Origin& origin) {
  if (origin.file.empty()) return {};
  if (origin.line == 0) return origin.file + ": ";
  return fmt::format("{}:{}:{}: ", origin.file, origin.line, origin.column);
}

void Problems::announce(const std::string& file) {
  files_.emplace(file, files_.size());
}

void Problems::add(const Origin& origin, const std::string& text) {
  const auto file = files_.find(origin.file);
  const std::size_t rank = file == files_.end() ? std::numeric_limits<std::size_t>::max() : file->second;
  found_.insert({rank, origin.line, origin.column, place(origin) + text});
}

std::vector<Problem> Problems::list() const {
  constexpr std::size_t enough = 100;
  std::vector<Problem> problems;
  for (const Found& found : found_) {
    if (problems.size() == enough) {
      problems.push_back({fmt::format("... and {} more", found_.size() - enough)});
      break;
    }
    problems.push_back({found.text});
  }
  return problems;
}

Error Problems::error(std::string hint) const {
  std::string message;
  for (const Problem& problem : list()) message += (message.empty() ? "" : "\n") + problem.text;
  return {Exit::manifest, std::move(message), std::move(hint)};
}

}  // namespace jail::manifest
