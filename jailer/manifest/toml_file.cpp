#include "jailer/manifest/toml_file.h"

#include <algorithm>
#include <stdexcept>

// toml++ 3.3 asserts what it should check ("[=]" is enough), and without assertions tells the compiler to
// assume it: undefined behaviour from a file. So its assertions are always on, and throw.
[[noreturn]] static void toml_defect(const char* assertion) {
  throw std::logic_error(assertion);
}
#undef NDEBUG
#define TOML_ASSERT(expr) (static_cast<bool>(expr) ? void() : toml_defect(#expr))
#define TOML_EXCEPTIONS 1
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include "supervisor/base/quote.h"

namespace jail::manifest {
namespace {

// Looks at a text before toml++ does, for what toml++ cannot bear. Follows strings and comments just so far
// that brackets and dots outside of them can be counted. Where the text is no TOML the two may disagree
// behind the error, which does not matter: toml++ stops there.
class Scanner {
 public:
  struct Refusal {
    Origin origin;
    std::string text;
  };

  explicit Scanner(std::string_view text) : text_(text) {}

  /// The first bracket or dotted key that nests too deeply (toml++ would recurse over it), or the first table
  /// header without a key (toml++ would assert).
  std::optional<Refusal> refusal() {
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
        if (c == '[' && brackets_ == 0 && !header_has_key())
          return refuse("a table's name is missing or malformed");
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
        return refuse("tables, arrays or dotted keys nest more than 16 levels deep");
    }
    return std::nullopt;
  }

 private:
  static constexpr unsigned limit = 16;

  [[nodiscard]] Refusal refuse(std::string text) const {
    return {{{}, line_, static_cast<unsigned>(at_ - line_start_ + 1)}, std::move(text)};
  }

  // Whether the bracket at at_ opens no table header, or one in which a key begins.
  [[nodiscard]] bool header_has_key() const {
    constexpr std::string_view blanks = " \t";
    const std::string_view before = text_.substr(line_start_, at_ - line_start_);
    if (before.find_first_not_of(blanks) != std::string_view::npos) return true;
    std::size_t next = at_ + 1;
    if (next < text_.size() && text_[next] == '[') ++next;
    next = text_.find_first_not_of(blanks, next);
    if (next == std::string_view::npos) return true;  // cut off: toml++ says so
    const char c = text_[next];
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '"' || c == '\'';
  }

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
  if (auto refusal = Scanner(text).refusal()) {
    refusal->origin.file = file;
    problems.add(refusal->origin, refusal->text);
    return std::nullopt;
  }
  try {
    const toml::table table = toml::parse(text, std::string_view(file));
    return Converter(file, problems).convert(table, {file, 1, 1});
  } catch (const toml::parse_error& error) {
    problems.add({file, error.source().begin.line, error.source().begin.column},
                 escape(std::string_view(error.description())));
  } catch (const std::logic_error&) {
    problems.add({file, 0, 0}, "this is no TOML, in a way that the parser cannot place");
  }
  return std::nullopt;
}

}  // namespace jail::manifest
