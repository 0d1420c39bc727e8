// The engine that turns value trees into the model, driven by tables: each key of the manifest is one Field,
// and from the same Field come the check of its value, the known keys of "did you mean", the rule of merging,
// `jail show` and the JSON form. The tables themselves are in schema.cpp.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "jailer/manifest/problems.h"
#include "jailer/manifest/value.h"

namespace jail::manifest {

/// In TOML's own shape and the manifest's own notation ("100ms", "64M", "0750"), keys in the order of the
/// tables.
using Json = nlohmann::ordered_json;

/// How a drop-in's value joins the manifest's.
enum class Merge : std::uint8_t {
  replace,  ///< scalars, and lists that are one value (a command)
  append,   ///< lists that are sets
  entries,  ///< arrays of tables with an identity: by entry
  fields,   ///< tables: by key
  map,      ///< a table whose keys are free (environment): by key
};

/// What is known of a key without its value: the untyped view of a Field.
struct Key {
  std::string_view name;
  Merge merge = Merge::replace;
  bool required = false;
  std::vector<std::string_view>
      identity;                        ///< entries: the keys that name one, the first that is given counts
  std::vector<std::string_view> seed;  ///< append: the default, to which a drop-in's words are added
  std::vector<Key> children;           ///< fields, entries

  [[nodiscard]] const Key* find(std::string_view key) const;
};

/// What stands where while a tree is bound.
class Binder {
 public:
  /// `complete`: also what is missing is a problem (a drop-in alone need not be complete). `root` knows all
  /// keys.
  Binder(Problems& problems, const Key& root, bool complete)
      : problems_(problems), root_(root), complete_(complete) {}

  /// Goes down by one name or index while it lives.
  class Scope {
   public:
    Scope(Binder& binder, std::string_view name);
    Scope(Binder& binder, std::size_t index);
    ~Scope() { binder_.path_.resize(length_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Binder& binder_;
    std::size_t length_;
  };

  /// A problem at a value; the value's path counts as broken.
  void problem(const Value& at, const std::string& text);
  void expected(const Value& at, std::string_view what);
  void unknown_key(const Member& member, const std::string& table, const std::vector<std::string>& known);
  void missing(const Value& table, const std::string& name, std::string_view key);

  /// Remembers where the value of the present path was written.
  void note(const Origin& origin) { origins_.emplace(path_, origin); }

  [[nodiscard]] bool complete() const { return complete_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::map<std::string, Origin>& origins() { return origins_; }
  /// Whether something at or below `path` had a problem: what depends on it is then not worth a second
  /// message.
  [[nodiscard]] bool broken(const std::string& path) const;

 private:
  Problems& problems_;
  const Key& root_;
  bool complete_;
  std::string path_;
  std::map<std::string, Origin> origins_;
  std::set<std::string> broken_;
};

template <class T>
struct Field {
  std::string_view name;
  Merge merge = Merge::replace;
  bool required = false;
  void (*bind)(Binder&, T&, const Value&) = nullptr;
  Json (*show)(const T&) = nullptr;  ///< null where there is nothing to say
  void (*describe)(Key&) = nullptr;  ///< adds identity, seed and children
};

/// The table of a type: specialised in schema.cpp for each struct of the model.
template <class T>
std::span<const Field<T>> fields();

template <class T>
std::vector<Key> describe(std::span<const Field<T>> table) {
  std::vector<Key> keys;
  for (const Field<T>& field : table) {
    Key key{field.name, field.merge, field.required, {}, {}, {}};
    if (field.describe != nullptr) field.describe(key);
    keys.push_back(std::move(key));
  }
  return keys;
}

/// The table's name in messages: "[service.restart]", "[[volume]]", or "the top level".
[[nodiscard]] std::string table_name(const std::string& path, bool entry);

template <class T>
void bind_table(Binder& binder, T& target, const Value& value, std::span<const Field<T>> table,
                const std::string& name) {
  const Value::Table* members = value.table();
  if (members == nullptr) return binder.expected(value, "a table");
  std::set<std::string_view> seen;
  for (const Member& member : *members) {
    const Field<T>* field = nullptr;
    for (const Field<T>& candidate : table)
      if (candidate.name == member.key) field = &candidate;
    if (field == nullptr) {
      std::vector<std::string> known;
      for (const Field<T>& candidate : table) known.emplace_back(candidate.name);
      binder.unknown_key(member, name, known);
      continue;
    }
    seen.insert(field->name);
    const Binder::Scope scope(binder, member.key);
    binder.note(member.value.origin);
    field->bind(binder, target, member.value);
  }
  if (!binder.complete()) return;
  for (const Field<T>& field : table)
    if (field.required && !seen.contains(field.name)) binder.missing(value, name, field.name);
}

template <class T>
Json show_table(const T& value, std::span<const Field<T>> table) {
  Json out = Json::object();
  for (const Field<T>& field : table) {
    Json shown = field.show(value);
    if (!shown.is_null()) out[std::string(field.name)] = std::move(shown);
  }
  return out;
}

}  // namespace jail::manifest
