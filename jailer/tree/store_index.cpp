#include "jailer/tree/store_index.h"

#include <algorithm>

#include "jailer/witness/fields.h"

namespace jail::tree {
namespace {

constexpr std::string_view head = "jail-store-index 3";

void put(FieldWriter& out, const Stamp& stamp) {
  out.number(stamp.inode);
  out.number(stamp.size);
  out.number(stamp.mtime);
  out.number(stamp.ctime);
}

void take(FieldReader& in, Stamp& stamp) {
  in.number(stamp.inode);
  in.number(stamp.size);
  in.number(stamp.mtime);
  in.number(stamp.ctime);
}

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (end != 0) words.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

void read_source(FieldReader& in, StoreIndex& index) {
  SourceRecord record;
  std::string path(in.text());
  in.number(record.device);
  take(in, record.stamp);
  record.sha256 = in.text();
  record.database = in.text();
  record.package = in.text();
  record.version = in.text();
  record.architecture = in.text();
  record.mentions = split(in.text());
  if (in.good()) index.sources.insert_or_assign(index.sources.end(), std::move(path), std::move(record));
}

void read_object(FieldReader& in, StoreIndex& index) {
  Stamp stamp;
  std::string key(in.text());
  take(in, stamp);
  if (in.good()) index.objects.insert_or_assign(index.objects.end(), std::move(key), stamp);
}

}  // namespace

std::string StoreIndex::to_bytes() const {
  FieldWriter out;
  out.bytes.reserve(256 * (sources.size() + objects.size()) + 32);
  out.text(head);
  for (const auto& [path, record] : sources) {
    out.text("S");
    out.text(path);
    out.number(record.device);
    put(out, record.stamp);
    out.text(record.sha256);
    out.text(record.database);
    out.text(record.package);
    out.text(record.version);
    out.text(record.architecture);
    out.text(fmt::format("{}", fmt::join(record.mentions, "\n")));
  }
  for (const auto& [key, stamp] : objects) {
    out.text("O");
    out.text(key);
    put(out, stamp);
  }
  return std::move(out.bytes);
}

std::optional<StoreIndex> StoreIndex::from_bytes(std::string_view bytes) {
  StoreIndex index;
  FieldReader in(bytes);
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
