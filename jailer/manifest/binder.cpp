#include "jailer/manifest/binder.h"

#include <algorithm>

#include "jailer/manifest/suggest.h"
#include "supervisor/base/quote.h"

namespace jail::manifest {
namespace {

// Where in the whole manifest a key of that very name is at home: "[sandbox]".
std::string home_of(std::string_view name, const Key& table, const std::string& path, bool entry) {
  for (const Key& key : table.children)
    if (key.name == name) return table_name(path, entry);
  for (const Key& key : table.children) {
    const std::string below = path.empty() ? std::string(key.name) : path + "." + std::string(key.name);
    std::string home = home_of(name, key, below, key.merge == Merge::entries);
    if (!home.empty()) return home;
  }
  return {};
}

}  // namespace

const Key* Key::find(std::string_view key) const {
  const auto found =
      std::find_if(children.begin(), children.end(), [&](const Key& child) { return child.name == key; });
  return found == children.end() ? nullptr : &*found;
}

Binder::Scope::Scope(Binder& binder, std::string_view name) : binder_(binder), length_(binder.path_.size()) {
  if (!binder.path_.empty()) binder.path_ += '.';
  binder.path_ += name;
}

Binder::Scope::Scope(Binder& binder, std::size_t index) : binder_(binder), length_(binder.path_.size()) {
  fmt::format_to(std::back_inserter(binder.path_), "[{}]", index);
}

void Binder::problem(const Value& at, const std::string& text) {
  problems_.add(at.origin, text);
  broken_.insert(path_);
}

void Binder::expected(const Value& at, std::string_view what) {
  problem(at, fmt::format("{}: expected {}, not {}", path_, what, at.kind()));
}

void Binder::unknown_key(const Member& member, const std::string& table,
                         const std::vector<std::string>& known) {
  std::string hint;
  if (const std::string home = home_of(member.key, root_, "", false); !home.empty()) {
    hint = "; it belongs " + std::string(home.starts_with('[') ? "in " : "to ") + home;
  } else {
    hint = did_you_mean(member.key, known);
  }
  problems_.add(member.key_origin, fmt::format("unknown key {} in {}{}", quote(member.key, 64), table, hint));
}

void Binder::missing(const Value& table, const std::string& name, std::string_view key) {
  problem(table, fmt::format("{} lacks the key '{}', which has no default", name, key));
}

bool Binder::broken(const std::string& path) const {
  const auto found = broken_.lower_bound(path);
  return found != broken_.end() && found->starts_with(path);
}

std::string table_name(const std::string& path, bool entry) {
  if (path.empty()) return "the top level";
  return entry ? "[[" + path + "]]" : "[" + path + "]";
}

}  // namespace jail::manifest
