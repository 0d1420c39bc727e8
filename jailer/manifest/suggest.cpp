#include "jailer/manifest/suggest.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace jail::manifest {
namespace {

std::string plain(std::string_view word) {
  std::string out;
  for (const char c : word)
    out += c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

// Damerau-Levenshtein distance (optimal string alignment) over three rows.
std::size_t distance(const std::string& left, const std::string& right) {
  std::array<std::vector<std::size_t>, 3> rows;
  for (auto& row : rows) row.resize(right.size() + 1);
  auto& [before, previous, current] = rows;
  for (std::size_t j = 0; j <= right.size(); ++j) previous[j] = j;
  for (std::size_t i = 1; i <= left.size(); ++i) {
    current[0] = i;
    for (std::size_t j = 1; j <= right.size(); ++j) {
      const std::size_t replace = previous[j - 1] + (left[i - 1] == right[j - 1] ? 0U : 1U);
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, replace});
      if (i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1])
        current[j] = std::min(current[j], before[j - 2] + 1);
    }
    std::swap(before, previous);
    std::swap(previous, current);
  }
  return previous[right.size()];
}

}  // namespace

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  constexpr std::size_t longest = 64;  // a longer word is no slip, and hostile input shall not make us slow
  if (word.empty() || word.size() > longest) return {};
  const std::string wanted = plain(word);
  constexpr std::size_t most_edits = 4;
  std::size_t best = most_edits + 1;
  std::string answer;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > longest) continue;
    const std::size_t far = distance(wanted, plain(candidate));
    if (far >= best || far > (std::max(word.size(), candidate.size()) + 1) / 2 || far >= candidate.size())
      continue;
    best = far;
    answer = candidate;
  }
  return answer;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string best = nearest(word, candidates);
  return best.empty() ? std::string() : "; did you mean '" + best + "'?";
}

}  // namespace jail::manifest
