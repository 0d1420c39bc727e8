// Makers of Fields: the words in which schema.cpp writes its tables.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "jailer/manifest/binder.h"
#include "jailer/manifest/codec.h"
#include "supervisor/base/quote.h"

namespace jail::manifest {

template <class Pointer>
struct MemberOf;
template <class O, class M>
struct MemberOf<M O::*> {
  using Owner = O;
  using Type = M;
};
template <auto Pointer>
using Owner = typename MemberOf<decltype(Pointer)>::Owner;
template <auto Pointer>
using MemberType = typename MemberOf<decltype(Pointer)>::Type;

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};

/// One value in a string, by a codec. An empty string or optional is not shown.
template <auto Pointer, class Codec>
constexpr Field<Owner<Pointer>> text(std::string_view name, bool required = false) {
  using O = Owner<Pointer>;
  return {name,
          Merge::replace,
          required,
          [](Binder& binder, O& target, const Value& value) {
            typename Codec::Type out{};
            if (read_text<Codec>(binder, value, out)) target.*Pointer = std::move(out);
          },
          [](const O& target) -> Json {
            if constexpr (IsOptional<MemberType<Pointer>>::value) {
              return target.*Pointer ? Codec::show(*(target.*Pointer)) : Json();
            } else if constexpr (std::is_same_v<MemberType<Pointer>, std::string>) {
              return (target.*Pointer).empty() ? Json() : Codec::show(target.*Pointer);
            } else {
              return Codec::show(target.*Pointer);
            }
          },
          nullptr};
}

/// Bytes: a string with a unit, or an integer.
template <auto Pointer, std::uint64_t Least = 0>
constexpr Field<Owner<Pointer>> size(std::string_view name) {
  using O = Owner<Pointer>;
  Field<O> field = text<Pointer, Size>(name);
  field.bind = [](Binder& binder, O& target, const Value& value) {
    std::uint64_t out = 0;
    if (const auto* number = value.integer()) {
      if (*number < 0)
        return binder.problem(value, fmt::format("{}: {} is negative", binder.path(), *number));
      out = static_cast<std::uint64_t>(*number);
    } else if (value.string() == nullptr) {
      return binder.expected(value, Size::expected);
    } else if (!read_text<Size>(binder, value, out)) {
      return;
    }
    if (out < Least)
      return binder.problem(value,
                            fmt::format("{}: {} bytes are too few; at least {}", binder.path(), out, Least));
    target.*Pointer = out;
  };
  return field;
}

/// An integer of a range.
template <auto Pointer, std::int64_t Least, std::int64_t Most>
constexpr Field<Owner<Pointer>> number(std::string_view name, bool required = false) {
  using O = Owner<Pointer>;
  return {name,
          Merge::replace,
          required,
          [](Binder& binder, O& target, const Value& value) {
            const std::int64_t* integer = value.integer();
            if (integer == nullptr) return binder.expected(value, "an integer");
            if (*integer < Least || *integer > Most)
              return binder.problem(value, fmt::format("{}: {} is out of range; expected {} to {}",
                                                       binder.path(), *integer, Least, Most));
            if constexpr (IsOptional<MemberType<Pointer>>::value) {
              target.*Pointer = static_cast<typename MemberType<Pointer>::value_type>(*integer);
            } else {
              target.*Pointer = static_cast<MemberType<Pointer>>(*integer);
            }
          },
          [](const O& target) -> Json {
            if constexpr (IsOptional<MemberType<Pointer>>::value) {
              return target.*Pointer ? Json(*(target.*Pointer)) : Json();
            } else {
              return target.*Pointer;
            }
          },
          nullptr};
}

template <auto Pointer>
constexpr Field<Owner<Pointer>> flag(std::string_view name) {
  using O = Owner<Pointer>;
  return {name,
          Merge::replace,
          false,
          [](Binder& binder, O& target, const Value& value) {
            const bool* truth = value.boolean();
            if (truth == nullptr) return binder.expected(value, "true or false");
            target.*Pointer = *truth;
          },
          [](const O& target) -> Json { return target.*Pointer; },
          nullptr};
}

/// Reads the strings of `value` by `Codec`; noting each one's place. `as_set`: no word twice.
template <class Codec>
std::vector<std::string> read_list(Binder& binder, const Value& value, bool as_set) {
  std::vector<std::string> out;
  const Value::Array* items = value.array();
  if (items == nullptr) {
    binder.expected(value, "an array of strings, each " + std::string(Codec::expected));
    return out;
  }
  std::map<std::string, Origin> seen;
  for (std::size_t i = 0; i < items->size(); ++i) {
    const Value& item = (*items)[i];
    std::string word;
    {
      const Binder::Scope scope(binder, i);
      if (!read_text<Codec>(binder, item, word)) continue;
    }
    const auto [first, fresh] = seen.emplace(word, item.origin);
    if (as_set && !fresh) {
      const Binder::Scope scope(binder, i);
      binder.problem(item,
                     fmt::format("{} is listed already (line {})", quote(word, 64), first->second.line));
      continue;
    }
    const Binder::Scope scope(binder, out.size());
    binder.note(item.origin);
    out.push_back(std::move(word));
  }
  return out;
}

/// A list in which order does not matter and no word stands twice; drop-ins add to it.
template <auto Pointer, class Codec>
constexpr Field<Owner<Pointer>> set_of(std::string_view name, bool required = false) {
  using O = Owner<Pointer>;
  return {name,
          Merge::append,
          required,
          [](Binder& binder, O& target, const Value& value) {
            target.*Pointer = read_list<Codec>(binder, value, true);
          },
          [](const O& target) -> Json { return (target.*Pointer).empty() ? Json() : Json(target.*Pointer); },
          nullptr};
}

/// The key `version`. There is one version of each format so far: nothing to keep.
template <class T>
constexpr Field<T> version() {
  return {"version",
          Merge::replace,
          true,
          [](Binder& binder, T&, const Value& value) {
            const std::int64_t* integer = value.integer();
            if (integer == nullptr) return binder.expected(value, "the integer 1");
            if (*integer != 1)
              binder.problem(value,
                             fmt::format("version {} is not known; this jail reads version 1", *integer));
          },
          [](const T&) { return Json(1); },
          nullptr};
}

/// A list that is one value, a command: a drop-in replaces it.
template <auto Pointer>
constexpr Field<Owner<Pointer>> command(std::string_view name, bool required = false) {
  using O = Owner<Pointer>;
  Field<O> field = set_of<Pointer, Text>(name, required);
  field.merge = Merge::replace;
  field.bind = [](Binder& binder, O& target, const Value& value) {
    target.*Pointer = read_list<Text>(binder, value, false);
    if (const auto* items = value.array(); items != nullptr && items->empty())
      binder.problem(value, binder.path() + ": a command needs at least the program");
  };
  return field;
}

/// A table of its own struct.
template <auto Pointer>
constexpr Field<Owner<Pointer>> table(std::string_view name, bool required = false) {
  using O = Owner<Pointer>;
  using T = MemberType<Pointer>;
  if constexpr (IsOptional<T>::value) {
    using Inner = typename T::value_type;
    return {name,
            Merge::fields,
            required,
            [](Binder& binder, O& target, const Value& value) {
              target.*Pointer = Inner{};
              bind_table<Inner>(binder, *(target.*Pointer), value, fields<Inner>(),
                                table_name(binder.path(), false));
            },
            [](const O& target) -> Json {
              return target.*Pointer ? show_table<Inner>(*(target.*Pointer), fields<Inner>()) : Json();
            },
            [](Key& key) { key.children = describe<Inner>(fields<Inner>()); }};
  } else {
    return {name,
            Merge::fields,
            required,
            [](Binder& binder, O& target, const Value& value) {
              bind_table<T>(binder, target.*Pointer, value, fields<T>(), table_name(binder.path(), false));
            },
            [](const O& target) -> Json { return show_table<T>(target.*Pointer, fields<T>()); },
            [](Key& key) { key.children = describe<T>(fields<T>()); }};
  }
}

/// What names an entry of an array of tables: the first of these keys that it has.
template <class T>
std::vector<std::string_view> identity_keys();

/// The identity of an entry as it is written; null when it has none (or it is no string).
inline const std::string* identity_of(const Value& entry, const std::vector<std::string_view>& keys) {
  for (const std::string_view key : keys)
    if (const Value* value = entry.find(key)) return value->string();
  return nullptr;
}

/// An array of tables, each with an identity.
template <auto Pointer>
constexpr Field<Owner<Pointer>> entries(std::string_view name) {
  using O = Owner<Pointer>;
  using T = typename MemberType<Pointer>::value_type;
  return {name,
          Merge::entries,
          false,
          [](Binder& binder, O& target, const Value& value) {
            const Value::Array* items = value.array();
            if (items == nullptr) return binder.expected(value, "an array of tables");
            const std::string title = table_name(binder.path(), true);
            std::map<std::string, Origin> seen;
            for (std::size_t i = 0; i < items->size(); ++i) {
              const Value& item = (*items)[i];
              const std::string* identity = identity_of(item, identity_keys<T>());
              if (identity != nullptr) {
                const auto [first, fresh] = seen.emplace(*identity, item.origin);
                if (!fresh)
                  binder.problem(item, fmt::format("{}: {} is there already (line {})", title,
                                                   quote(*identity, 128), first->second.line));
              }
              const Binder::Scope scope = identity != nullptr
                                              ? Binder::Scope(binder, std::string_view(*identity))
                                              : Binder::Scope(binder, i);
              binder.note(item.origin);
              T entry{};
              bind_table<T>(binder, entry, item, fields<T>(), title);
              (target.*Pointer).push_back(std::move(entry));
            }
          },
          [](const O& target) -> Json {
            if ((target.*Pointer).empty()) return {};
            Json out = Json::array();
            for (const T& entry : target.*Pointer) out.push_back(show_table<T>(entry, fields<T>()));
            return out;
          },
          [](Key& key) {
            key.identity = identity_keys<T>();
            key.children = describe<T>(fields<T>());
          }};
}

}  // namespace jail::manifest
