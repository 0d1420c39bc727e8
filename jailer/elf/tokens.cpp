#include "jailer/elf/tokens.h"

#include <algorithm>
#include <unordered_set>

namespace jail::elf {
namespace {

bool is_identifier(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

/// How many bytes `name` takes at the start of `text` (which stands behind a '$'); 0 when it is another
/// identifier.
std::size_t match(std::string_view text, std::string_view name) {
  const bool curly = !text.empty() && text[0] == '{';
  if (curly) text.remove_prefix(1);
  if (text.substr(0, name.size()) != name) return 0;
  text.remove_prefix(name.size());
  if (curly) return !text.empty() && text[0] == '}' ? name.size() + 2 : 0;
  return text.empty() || !is_identifier(text[0]) ? name.size() : 0;
}

struct Match {
  std::size_t length = 0;
  const std::optional<std::string> Tokens::*value = nullptr;
};

Match match_any(std::string_view text) {
  static constexpr struct {
    std::string_view name;
    std::optional<std::string> Tokens::*value;
  } table[] = {{"ORIGIN", &Tokens::origin}, {"PLATFORM", &Tokens::platform}, {"LIB", &Tokens::lib}};
  for (const auto& row : table) {
    if (const std::size_t length = match(text, row.name)) return {length, row.value};
  }
  return {};
}

/// Whether `path`, with its "." and ".." taken for what they say, begins with one of `directories` (ld.so's
/// is_trusted_path_normalize).
bool is_below(std::string_view path, const std::vector<std::string>& directories) {
  std::string plain;
  while (!path.empty()) {
    const std::size_t end = std::min(path.find('/', 1), path.size());
    const std::string_view part = path.substr(0, end);
    path.remove_prefix(end);
    if (part == "/..")
      plain.resize(plain.empty() ? 0 : plain.rfind('/'));
    else if (part != "/." && part != "/")
      plain += part;
  }
  plain += '/';
  return std::any_of(directories.begin(), directories.end(),
                     [&](const std::string& directory) { return plain.starts_with(directory); });
}

}  // namespace

bool has_token(std::string_view text) {
  for (std::size_t i = text.find('$'); i != std::string_view::npos; i = text.find('$', i + 1)) {
    if (match_any(text.substr(i + 1)).length != 0) return true;
  }
  return false;
}

std::optional<std::string> expand(std::string_view text, const Tokens& tokens) {
  std::string result;
  const std::string_view whole = text;
  bool has_origin = false;
  while (!text.empty()) {
    const std::size_t dollar = std::min(text.find('$'), text.size());
    result += text.substr(0, dollar);
    text.remove_prefix(dollar);
    if (text.empty()) break;
    text.remove_prefix(1);
    const Match found = match_any(text);
    if (found.length == 0) {
      result += '$';
      continue;
    }
    const std::optional<std::string>& value = tokens.*found.value;
    if (!value) return std::nullopt;
    if (found.value == &Tokens::origin) {
      const bool first =
          text.size() + 1 == whole.size() && (found.length == text.size() || text[found.length] == '/');
      if (tokens.secure && !first) return std::nullopt;
      has_origin = true;
    }
    result += *value;
    text.remove_prefix(found.length);
  }
  const bool doubted = has_origin && tokens.secure && tokens.trusted != nullptr;
  if (doubted && !is_below(result, *tokens.trusted)) return std::nullopt;
  return result;
}

std::vector<std::string> split_path(std::string_view list, const Tokens& tokens) {
  std::vector<std::string> directories;
  if (list.empty())
    return directories;  // an empty list is no list; an empty element is the current directory
  std::unordered_set<std::string> seen;
  for (;;) {
    const std::size_t colon = list.find(':');
    const std::string_view element = list.substr(0, colon);
    std::optional<std::string> directory = expand(element, tokens);
    // An element that expands to nothing is dropped; one that is empty as written counts.
    if (directory && (element.empty() || !directory->empty())) {
      while (directory->size() > 1 && directory->back() == '/') directory->pop_back();
      if (!directory->empty() && directory->back() != '/') *directory += '/';
      if (seen.insert(*directory).second) directories.push_back(std::move(*directory));
    }
    if (colon == std::string_view::npos) return directories;
    list.remove_prefix(colon + 1);
  }
}

}  // namespace jail::elf
