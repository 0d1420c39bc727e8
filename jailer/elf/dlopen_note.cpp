#include "jailer/elf/dlopen_note.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "supervisor/base/quote.h"

namespace jail::elf {
namespace {

using nlohmann::json;

constexpr std::size_t max_text = 64 * 1024;
constexpr std::size_t max_needs = 256;
constexpr std::size_t max_sonames = 32;
constexpr std::size_t max_word = 255;
constexpr std::array<const char*, 3> priorities = {"required", "recommended", "suggested"};

/// A string of one line.
Result<std::string> line(const json& value, const char* what, std::size_t most) {
  if (!value.is_string()) return fail(Exit::manifest, "its {} is not a string", what);
  const auto& text = value.get_ref<const std::string&>();
  const bool control = std::any_of(text.begin(), text.end(),
                                   [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
  if (control) return fail(Exit::manifest, "its {} holds a control character", what);
  if (text.size() > most) return fail(Exit::manifest, "its {} is longer than {} bytes", what, most);
  return text;
}

/// The member `key`; empty where there is none.
Result<std::string> member(const json& need, const char* key, std::size_t most) {
  const auto found = need.find(key);
  return found == need.end() ? std::string() : line(*found, key, most);
}

Result<std::string> soname(const json& name) {
  JAIL_TRY(text, line(name, "soname", max_word));
  if (text.empty() || text.find('/') != std::string::npos || text.front() == '.')
    return fail(Exit::manifest, "{} is no soname", quote(text));
  return std::move(text);
}

Result<DlopenNeed> read_need(const json& entry) {
  if (!entry.is_object()) return fail(Exit::manifest, "an entry is not an object");
  DlopenNeed need;
  const auto names = entry.find("soname");
  if (names == entry.end() || !names->is_array() || names->empty())
    return fail(Exit::manifest, "an entry without an array of sonames");
  if (names->size() > max_sonames) return fail(Exit::manifest, "more than {} alternatives", max_sonames);
  for (const json& name : *names) {
    JAIL_TRY(text, soname(name));
    need.sonames.push_back(std::move(text));
  }
  JAIL_TRY(feature, member(entry, "feature", max_word));
  need.feature = std::move(feature);
  JAIL_TRY(description, member(entry, "description", 4 * max_word));
  need.description = std::move(description);
  JAIL_TRY(priority, member(entry, "priority", max_word));
  if (!entry.contains("priority")) return need;
  const auto* known = std::find(priorities.begin(), priorities.end(), priority);
  if (known == priorities.end()) return fail(Exit::manifest, "{} is no priority", quote(priority));
  need.priority = static_cast<DlopenPriority>(known - priorities.begin());
  return need;
}

}  // namespace

Result<std::vector<DlopenNeed>> read_dlopen_note(std::string_view text) {
  if (text.size() > max_text) return fail(Exit::manifest, "longer than 64 KiB");
  const json note = json::parse(text, nullptr, false);
  if (note.is_discarded()) return fail(Exit::manifest, "not JSON");
  if (!note.is_array()) return fail(Exit::manifest, "not a JSON array");
  if (note.size() > max_needs) return fail(Exit::manifest, "more than {} entries", max_needs);
  std::vector<DlopenNeed> needs;
  for (const json& entry : note) {
    JAIL_TRY(need, read_need(entry));
    needs.push_back(std::move(need));
  }
  return needs;
}

const char* to_text(DlopenPriority priority) {
  return priorities.at(static_cast<std::size_t>(priority));
}

}  // namespace jail::elf
