#include "jailer/manifest/merge.h"

#include <algorithm>
#include <map>
#include <set>

#include "jailer/manifest/fields.h"
#include "jailer/manifest/suggest.h"
#include "supervisor/base/quote.h"

namespace jail::manifest {
namespace {

class Merger {
 public:
  explicit Merger(Problems& problems) : problems_(problems) {}

  // ---- [remove]
  // ----------------------------------------------------------------------------------------------

  // `removal` is the table below [remove] that belongs to the table `base` (null: there is none).
  void remove(Value* base, const Value& removal, const Key& key, const std::string& path) {
    const Value::Table* members = removal.table();
    if (members == nullptr) return wrong(removal, path, "a table of what to take away");
    for (const Member& member : *members) {
      const std::string below = path.empty() ? member.key : path + "." + member.key;
      Value* target = base == nullptr ? nullptr : base->find(member.key);
      const Key* child = key.find(member.key);
      if (key.merge == Merge::map) {
        remove_whole(base, target, member, false, below);
      } else if (child == nullptr) {
        std::vector<std::string> known;
        for (const Key& candidate : key.children) known.emplace_back(candidate.name);
        problems_.add(member.key_origin, fmt::format("unknown key {} in [remove]{}", quote(below, 128),
                                                     did_you_mean(member.key, known)));
      } else if (member.value.boolean() != nullptr) {
        remove_whole(base, target, member, !child->seed.empty(), below);
      } else if (child->merge == Merge::fields || child->merge == Merge::map) {
        remove(target, member.value, *child, below);
      } else if (child->merge == Merge::append || child->merge == Merge::entries) {
        remove_items(base, target, member, *child, below);
      } else {
        wrong(member.value, below, "true, which takes the whole value away");
      }
    }
  }

  // ---- laying over
  // -------------------------------------------------------------------------------------------

  void lay_over(Value& base, const Value& overlay, const Key& key) {
    if (base.table() == nullptr || overlay.table() == nullptr) {
      base = overlay;  // of a wrong kind: the binder says so
      return;
    }
    std::map<std::string, std::size_t> places;
    for (std::size_t i = 0; i < base.table()->size(); ++i) places.emplace((*base.table())[i].key, i);
    for (const Member& member : *overlay.table()) {
      const Key* child = key.find(member.key);
      const auto place = places.find(member.key);
      if (place == places.end()) {
        base.table()->push_back(member);
        if (child != nullptr && !child->seed.empty()) prepend_seed(base.table()->back().value, *child);
        continue;
      }
      Value& target = (*base.table())[place->second].value;
      switch (child == nullptr ? Merge::replace : child->merge) {
        case Merge::replace:
          target = member.value;
          break;
        case Merge::append:
          append(target, member.value);
          break;
        case Merge::entries:
          lay_over_entries(target, member.value, *child);
          break;
        case Merge::fields:
          lay_over(target, member.value, *child);
          break;
        case Merge::map:
          lay_over(target, member.value, Key{});
          break;
      }
    }
  }

 private:
  void wrong(const Value& value, const std::string& path, std::string_view what) {
    problems_.add(value.origin, fmt::format("remove.{}: expected {}, not {}", path, what, value.kind()));
  }

  void absent(const Origin& origin, const std::string& what) {
    problems_.add(origin, fmt::format("[remove]: {} is not there to be taken away", what));
  }

  // `to_empty`: a list with a default that is taken away stays away, instead of becoming its default again.
  void remove_whole(Value* base, Value* target, const Member& member, bool to_empty,
                    const std::string& path) {
    if (member.value.boolean() == nullptr || !*member.value.boolean())
      return wrong(member.value, path, "true, which takes the whole value away");
    if (to_empty && base != nullptr && base->table() != nullptr) {
      if (target == nullptr) {
        base->table()->push_back({member.key, member.key_origin, {}});
        target = &base->table()->back().value;
      }
      *target = {Value::Array{}, member.value.origin};
    } else if (target == nullptr) {
      absent(member.key_origin, quote(path, 128));
    } else {
      std::erase_if(*base->table(), [&](const Member& candidate) { return candidate.key == member.key; });
    }
  }

  void remove_items(Value* base, Value* target, const Member& member, const Key& key,
                    const std::string& path) {
    const Value::Array* wanted = member.value.array();
    if (wanted == nullptr) return wrong(member.value, path, "an array of what to take away");
    if (target == nullptr && !key.seed.empty() && base != nullptr && base->table() != nullptr) {
      base->table()->push_back({member.key, member.key_origin, seed_value(key)});
      target = &base->table()->back().value;
    }
    Value::Array none;
    Value::Array& items = target != nullptr && target->array() != nullptr ? *target->array() : none;
    std::set<std::string> names;
    for (const Value& item : *wanted)
      if (item.string() == nullptr)
        wrong(item, path, key.merge == Merge::entries ? "the name of an entry" : "a string");
      else
        names.insert(*item.string());
    std::set<std::string> taken;
    std::erase_if(items, [&](const Value& item) {
      const std::string* name = key.merge == Merge::entries ? identity_of(item, key.identity) : item.string();
      if (name == nullptr || !names.contains(*name)) return false;
      taken.insert(*name);
      return true;
    });
    for (const Value& item : *wanted)
      if (item.string() != nullptr && !taken.contains(*item.string()))
        absent(item.origin, fmt::format("{} of {}", quote(*item.string(), 128), path));
  }

  static Value seed_value(const Key& key) {
    Value::Array items;
    for (const std::string_view word : key.seed) items.push_back({std::string(word), {}});
    return {std::move(items), {}};
  }

  static void prepend_seed(Value& value, const Key& key) {
    Value seeded = seed_value(key);
    seeded.origin = value.origin;
    append(seeded, value);
    value = std::move(seeded);
  }

  static void append(Value& target, const Value& more) {
    if (target.array() == nullptr || more.array() == nullptr) {
      target = more;
      return;
    }
    std::set<std::string> held;
    for (const Value& item : *target.array())
      if (item.string() != nullptr) held.insert(*item.string());
    for (const Value& item : *more.array())
      if (item.string() == nullptr || held.insert(*item.string()).second) target.array()->push_back(item);
  }

  void lay_over_entries(Value& target, const Value& more, const Key& key) {
    if (target.array() == nullptr || more.array() == nullptr) {
      target = more;
      return;
    }
    std::map<std::string, std::size_t> places;
    for (std::size_t i = 0; i < target.array()->size(); ++i)
      if (const std::string* name = identity_of((*target.array())[i], key.identity)) places.emplace(*name, i);
    for (const Value& entry : *more.array()) {
      const std::string* name = identity_of(entry, key.identity);
      const auto place = name == nullptr ? places.end() : places.find(*name);
      if (place == places.end()) {
        target.array()->push_back(entry);
      } else {
        lay_over((*target.array())[place->second], entry, key);
      }
    }
  }

  Problems& problems_;
};

std::string substituted(const std::string& text, const std::string& instance, std::string& unknown) {
  std::string out;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '%') {
      out += text[at];
      continue;
    }
    const char what = at + 1 < text.size() ? text[++at] : '\0';
    if (what == 'i') {
      out += instance;
    } else if (what == '%') {
      out += '%';
    } else {
      unknown = what == '\0' ? std::string("%") : std::string("%") + what;
    }
  }
  return out;
}

}  // namespace

void merge(Value& base, const Value& overlay, const Key& keys, Problems& problems) {
  Merger merger(problems);
  if (const Value* removal = overlay.find("remove")) merger.remove(&base, *removal, keys, "");
  Value additions = overlay;
  if (additions.table() != nullptr)
    std::erase_if(*additions.table(), [](const Member& member) { return member.key == "remove"; });
  merger.lay_over(base, additions, keys);
}

void substitute(Value& value, const std::string& instance, Problems& problems) {
  if (auto* text = std::get_if<std::string>(&value.data)) {
    std::string unknown;
    *text = substituted(*text, instance, unknown);
    if (!unknown.empty())
      problems.add(value.origin,
                   fmt::format("{} is not known in a template: write %i for the instance, %% for a "
                               "percent sign",
                               quote(unknown)));
  } else if (auto* items = value.array()) {
    for (Value& item : *items) substitute(item, instance, problems);
  } else if (auto* members = value.table()) {
    for (Member& member : *members) substitute(member.value, instance, problems);
  }
}

}  // namespace jail::manifest
