#include "jailer/tree/store_index.h"

#include <charconv>

namespace jail::tree {
namespace {

constexpr std::string_view head = "jail-store-index 2";

class Writer {
 public:
  void text(std::string_view field) { bytes.append(field).push_back('\0'); }
  template <class Integer>
  void number(Integer value) {
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
    text({digits, static_cast<std::size_t>(end - digits)});
  }
  void stamp(const Stamp& stamp) {
    number(stamp.inode);
    number(stamp.size);
    number(stamp.mtime);
    number(stamp.ctime);
  }
  std::string bytes;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
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
  void stamp(Stamp& stamp) {
    number(stamp.inode);
    number(stamp.size);
    number(stamp.mtime);
    number(stamp.ctime);
  }

 private:
  std::string_view rest_;
  bool good_ = true;
};

void read_source(Reader& in, StoreIndex& index) {
  SourceRecord record;
  std::string path(in.text());
  in.number(record.device);
  in.stamp(record.stamp);
  record.sha256 = in.text();
  record.database = in.text();
  record.package = in.text();
  record.version = in.text();
  record.architecture = in.text();
  if (in.good()) index.sources.insert_or_assign(index.sources.end(), std::move(path), std::move(record));
}

void read_object(Reader& in, StoreIndex& index) {
  Stamp stamp;
  std::string key(in.text());
  in.stamp(stamp);
  if (in.good()) index.objects.insert_or_assign(index.objects.end(), std::move(key), stamp);
}

}  // namespace

std::string StoreIndex::to_bytes() const {
  Writer out;
  out.bytes.reserve(256 * (sources.size() + objects.size()) + 32);
  out.text(head);
  for (const auto& [path, record] : sources) {
    out.text("S");
    out.text(path);
    out.number(record.device);
    out.stamp(record.stamp);
    out.text(record.sha256);
    out.text(record.database);
    out.text(record.package);
    out.text(record.version);
    out.text(record.architecture);
  }
  for (const auto& [key, stamp] : objects) {
    out.text("O");
    out.text(key);
    out.stamp(stamp);
  }
  return std::move(out.bytes);
}

std::optional<StoreIndex> StoreIndex::from_bytes(std::string_view bytes) {
  StoreIndex index;
  Reader in(bytes);
  if (in.text() != head) return std::nullopt;
  while (in.good() && !in.done()) {
    const std::string_view kind = in.text();
    if (kind == "S")
      read_source(in, index);
    else if (kind == "O")
      read_object(in, index);
    else
      return std::nullopt;
  }
  if (!in.good()) return std::nullopt;
  return index;
}

}  // namespace jail::tree
