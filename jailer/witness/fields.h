// The form of our caches: fields that end in a NUL byte each. Written and read in one pass, without a parser;
// what is torn or of another version is no cache.
#pragma once

#include <charconv>
#include <string>
#include <string_view>

namespace jail {

class FieldWriter {
 public:
  void text(std::string_view field) { bytes.append(field).push_back('\0'); }
  template <class Integer>
  void number(Integer value) {
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
    text({digits, static_cast<std::size_t>(end - digits)});
  }
  /// Any bytes, behind their number.
  void sized(std::string_view some) {
    number(some.size());
    bytes += some;
  }
  std::string bytes;
};

/// Views into the bytes that it was made of. After something that is not as it must be, good() is false and
/// what is read is empty.
class FieldReader {
 public:
  explicit FieldReader(std::string_view bytes) : rest_(bytes) {}
  [[nodiscard]] bool done() const { return rest_.empty(); }
  [[nodiscard]] bool good() const { return good_; }
  std::string_view text() {
    const std::size_t end = rest_.find('\0');
    if (end == std::string_view::npos) {
      good_ = false;
      rest_ = {};
      return {};
    }
    const std::string_view field = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return field;
  }
  template <class Integer>
  void number(Integer& value) {
    const std::string_view field = text();
    const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
    if (error != std::errc{} || end != field.data() + field.size()) good_ = false;
  }
  /// The next `size` bytes, whatever they are.
  std::string_view bytes(std::size_t size) {
    if (size > rest_.size()) good_ = false;
    const std::string_view some = rest_.substr(0, good_ ? size : 0);
    rest_.remove_prefix(good_ ? size : rest_.size());
    return some;
  }
  [[nodiscard]] std::string_view rest() const { return rest_; }
  /// Passes over `bytes`, which must come next.
  void expect(std::string_view bytes) {
    if (!rest_.starts_with(bytes)) good_ = false;
    rest_.remove_prefix(good_ ? bytes.size() : rest_.size());
  }

 private:
  std::string_view rest_;
  bool good_ = true;
};

}  // namespace jail
