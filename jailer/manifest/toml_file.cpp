#include "jailer/manifest/toml_file.h"

#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include <algorithm>

#include "supervisor/base/quote.h"

namespace jail::manifest {
namespace {

// Follows strings and comments just so far that brackets and dots outside of them can be counted. Where the
// text is no TOML the two may disagree behind the error, which does not matter: toml++ stops there.
class DepthScanner {
 public:
  explicit DepthScanner(std::string_view text) : text_(text) {}

  /// The place of the first bracket or dotted key that nests too deeply.
  std::optional<Origin> too_deep() {
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '"' || c == '\'') {
        skip_string(c);
      } else if (c == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
        newline();
      } else if (c == '\n') {
        newline();
      } else if (c == '[' || c == '{') {
        ++brackets_;
        dots_ = 0;
      } else if (c == ']' || c == '}') {
        brackets_ -= brackets_ > 0 ? 1U : 0U;
        dots_ = 0;
      } else if (c == '=' || c == ',') {
        dots_ = 0;
      } else if (c == '.') {
        ++dots_;
      }
      if (brackets_ > limit || dots_ > limit)
        return Origin{{}, line_, static_cast<unsigned>(at_ - line_start_ + 1)};
    }
    return std::nullopt;
  }

 private:
  static constexpr unsigned limit = 16;

  void newline() {
    ++line_;
    line_start_ = at_ + 1;
    dots_ = 0;
  }

  // Leaves at_ on the last byte of the string.
  void skip_string(char mark) {
    const std::string triple(3, mark);
    const bool lines = text_.substr(at_, 3) == triple;
    at_ += lines ? 3 : 1;
    for (; at_ < text_.size(); ++at_) {
      if (text_[at_] == '\n') {
        newline();
        if (!lines) return;
      } else if (text_[at_] == '\\' && mark == '"') {
        ++at_;
        if (at_ < text_.size() && text_[at_] == '\n') newline();
      } else if (!lines && text_[at_] == mark) {
        return;
      } else if (lines && text_.substr(at_, 3) == triple) {
        at_ += 2;
        // One or two quotation marks may stand before the closing three.
        for (int more = 0; more < 2 && at_ + 1 < text_.size() && text_[at_ + 1] == mark; ++more) ++at_;
        return;
      }
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t line_start_ = 0;
  unsigned line_ = 1;
  unsigned brackets_ = 0;
  unsigned dots_ = 0;
};

class Converter {
 public:
  Converter(const std::string& file, Problems& problems) : file_(file), problems_(problems) {}

  Value convert(const toml::node& node, const Origin& fallback) {
    Value value;
    value.origin = origin(node.source(), fallback);
    if (const auto* table = node.as_table()) {
      value.data = convert_table(*table, value.origin);
    } else if (const auto* array = node.as_array()) {
      Value::Array items;
      items.reserve(array->size());
      for (const toml::node& item : *array) items.push_back(convert(item, value.origin));
      value.data = std::move(items);
    } else if (const auto* text = node.as_string()) {
      if (text->get().find('\0') != std::string::npos)
        problems_.add(value.origin, quote(text->get(), 64) + " holds a NUL byte, which no string here may");
      value.data = text->get();
    } else if (const auto* number = node.as_integer()) {
      value.data = number->get();
    } else if (const auto* truth = node.as_boolean()) {
      value.data = truth->get();
    } else {
      value.data = Value::Other{node.is_floating_point() ? "a float" : "a date or time"};
    }
    return value;
  }

 private:
  [[nodiscard]] Origin origin(const toml::source_region& region, const Origin& fallback) const {
    if (!region.begin) return fallback;
    return {file_, region.begin.line, region.begin.column};
  }

  Value::Table convert_table(const toml::table& table, const Origin& fallback) {
    Value::Table members;
    members.reserve(table.size());
    for (const auto& [key, node] : table) {
      const Origin place = origin(key.source(), fallback);
      std::string name(key.str());
      if (name.find('\0') != std::string::npos)
        problems_.add(place, "the key " + quote(name, 64) + " holds a NUL byte");
      members.push_back({std::move(name), place, convert(node, place)});
    }
    std::stable_sort(members.begin(), members.end(), [](const Member& left, const Member& right) {
      return std::pair(left.key_origin.line, left.key_origin.column) <
             std::pair(right.key_origin.line, right.key_origin.column);
    });
    return members;
  }

  const std::string& file_;
  Problems& problems_;
};

}  // namespace

std::optional<Value> parse_toml(std::string_view text, const std::string& file, Problems& problems) {
  if (auto deep = DepthScanner(text).too_deep()) {
    deep->file = file;
    problems.add(*deep, "tables, arrays or dotted keys nest more than 16 levels deep");
    return std::nullopt;
  }
  const toml::parse_result result = toml::parse(text, std::string_view(file));
  if (!result) {
    const auto& error = result.error();
    problems.add({file, error.source().begin.line, error.source().begin.column},
                 escape(std::string_view(error.description())));
    return std::nullopt;
  }
  return Converter(file, problems).convert(result.table(), {file, 1, 1});
}

}  // namespace jail::manifest
