#include "jailer/tree/lock_reader.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "jailer/tree/attributes_json.h"
#include "jailer/tree/lock_text.h"
#include "jailer/tree/root_dir.h"
#include "supervisor/base/quote.h"
#include "supervisor/spec/instance.h"

namespace jail::tree {
namespace {

using nlohmann::json;

/// Reads the members of one JSON object, and remembers the first thing that is wrong with it.
class Object {
 public:
  Object(const json& value, std::string where, std::string& problem)
      : value_(value), where_(std::move(where)), problem_(problem) {
    if (!value_.is_object()) complain("must be an object");
  }

  [[nodiscard]] const json* find(const char* key, bool required) {
    seen_.insert(key);
    if (!value_.is_object()) return nullptr;
    const auto at = value_.find(key);
    if (at != value_.end()) return &*at;
    if (required) complain(fmt::format("the key \"{}\" is missing", key));
    return nullptr;
  }

  void text(const char* key, std::string& out, bool required = true) {
    const json* value = find(key, required);
    if (value == nullptr) return;
    if (!value->is_string()) return complain(fmt::format("\"{}\" must be a string", key));
    auto bytes = from_text(value->get_ref<const std::string&>());
    if (!bytes || bytes->find('\0') != std::string::npos)
      return complain(fmt::format("\"{}\" is not text of ours", key));
    if (!required && bytes->empty()) return complain(fmt::format("\"{}\" is empty", key));
    out = std::move(*bytes);
  }

  void hash(const char* key, std::string& out) {
    text(key, out);
    const bool hex = out.size() == 64 && out.find_first_not_of("0123456789abcdef") == std::string::npos;
    if (!hex) complain(fmt::format("\"{}\" must be 64 hexadecimal digits", key));
  }

  template <class Integer>
  void number(const char* key, Integer& out) {
    const json* value = find(key, true);
    if (value == nullptr) return;
    if (!value->is_number_unsigned() ||
        value->get<std::uint64_t>() > std::uint64_t{std::numeric_limits<Integer>::max()})
      return complain(fmt::format("\"{}\" must be a whole number that fits", key));
    out = value->get<Integer>();
  }

  void mode(const char* key, std::uint32_t& out) {
    std::string digits;
    text(key, digits);
    out = 0;
    if (digits.size() != 4 || digits.find_first_not_of("01234567") != std::string::npos)
      return complain(fmt::format("\"{}\" must be four octal digits", key));
    for (const char digit : digits) out = out * 8 + static_cast<std::uint32_t>(digit - '0');
  }

  /// To be called last: keys that nobody asked for.
  void finish() {
    if (!value_.is_object()) return;
    for (const auto& [key, value] : value_.items())
      if (!seen_.contains(key)) complain(fmt::format("unknown key {}", quote(key)));
  }

  void complain(const std::string& what) {
    if (problem_.empty()) problem_ = where_ + ": " + what;
  }

 private:
  const json& value_;
  std::string where_;
  std::string& problem_;
  std::set<std::string> seen_;
};

void read_reasons(Object& object, std::vector<Reason>& why, const std::string& where, std::string& problem) {
  const json* list = object.find("why", true);
  if (list == nullptr) return;
  if (!list->is_array()) return object.complain("\"why\" must be a list");
  for (const json& item : *list) {
    Object reason(item, where + ".why", problem);
    Reason& read = why.emplace_back();
    reason.text("kind", read.kind);
    reason.text("by", read.by, false);
    reason.text("detail", read.detail, false);
    reason.finish();
  }
}

void read_attributes(Object& object, Attributes& xattrs) {
  const json* value = object.find("xattrs", false);
  if (value == nullptr) return;
  auto read = attributes_from_json(*value);
  if (!read) return object.complain("\"xattrs\" must be an object of names and values (0x...)");
  xattrs = std::move(*read);
}

void read_payload(Object& object, LockEntry& entry) {
  switch (entry.type) {
    case EntryType::file:
      if (!entry.secret) {
        object.number("size", entry.size);
        object.hash("sha256", entry.sha256);
        read_attributes(object, entry.xattrs);
      }
      object.text("source", entry.source, false);
      object.text("package", entry.package, false);
      object.text("package_version", entry.package_version, false);
      object.text("package_architecture", entry.package_architecture, false);
      break;
    case EntryType::symlink:
      object.text("target", entry.target);
      if (entry.target.empty()) object.complain("\"target\" is empty");
      break;
    case EntryType::character_device:
    case EntryType::block_device:
      object.number("major", entry.major);
      object.number("minor", entry.minor);
      break;
    case EntryType::directory:
      break;
  }
}

LockEntry read_entry(const json& value, std::size_t index, std::string& problem) {
  LockEntry entry;
  const std::string where = fmt::format("entries[{}]", index);
  Object object(value, where, problem);
  object.text("path", entry.path);
  if (!is_clean(entry.path)) object.complain("\"path\" must be absolute and without \"..\"");
  std::string type;
  object.text("type", type);
  if (const auto known = type_from_name(type))
    entry.type = *known;
  else
    object.complain(fmt::format("{} is no type of an entry", quote(type)));
  object.mode("mode", entry.mode);
  object.number("uid", entry.uid);
  object.number("gid", entry.gid);
  if (const json* secret = object.find("secret", false)) {
    if (!secret->is_boolean() || !secret->get<bool>()) object.complain("\"secret\" can only be true");
    entry.secret = true;
  }
  read_payload(object, entry);
  read_reasons(object, entry.why, where, problem);
  object.finish();
  return entry;
}

/// Paths strictly rising, each in a directory that is in the lock too: then no walk meets a surprise.
void check_order(const std::vector<LockEntry>& entries, std::string& problem) {
  std::set<std::string_view> directories;
  std::string_view last;
  for (const LockEntry& entry : entries) {
    if (!problem.empty()) return;
    if (!last.empty() && entry.path <= last)
      problem = fmt::format("{}: out of order, or twice", quote(entry.path));
    if (entry.path == "/" ? entry.type != EntryType::directory : !directories.contains(parent_of(entry.path)))
      problem = fmt::format("{}: not in a directory of the lock", quote(entry.path));
    if (entry.type == EntryType::directory) directories.insert(entry.path);
    last = entry.path;
  }
  if (entries.empty() && problem.empty()) problem = "there are no entries";
}

void read_frozen(Object& top, Lock& lock, std::string& problem) {
  const json* frozen = top.find("frozen", true);
  if (frozen == nullptr) return;
  Object object(*frozen, "frozen", problem);
  if (!frozen->is_object()) return;
  for (const auto& [file, hash] : frozen->items()) {
    if (file.empty() || file.front() == '.' || file.find('/') != std::string::npos ||
        file.find('\0') != std::string::npos)
      object.complain(fmt::format("{} is no file name", quote(file)));
    object.hash(file.c_str(), lock.frozen[file]);
  }
}

void read_volumes(Object& top, Lock& lock, std::string& problem) {
  const json* list = top.find("volumes", true);
  if (list == nullptr) return;
  if (!list->is_array()) return top.complain("\"volumes\" must be a list");
  std::string last;
  for (const json& value : *list) {
    Object object(value, fmt::format("volumes[{}]", lock.volumes.size()), problem);
    PlannedVolume& volume = lock.volumes.emplace_back();
    object.text("name", volume.name);
    if (!valid_name(volume.name)) object.complain("\"name\" cannot name a volume");
    object.text("path", volume.path);
    if (!is_clean(volume.path)) object.complain("\"path\" must be absolute and without \"..\"");
    if (volume.name < last) object.complain("out of order");
    last = volume.name;
    object.number("uid", volume.uid);
    object.number("gid", volume.gid);
    object.mode("mode", volume.mode);
    object.finish();
  }
}

}  // namespace

Result<Lock> read_lock(std::string_view text, std::string_view name) {
  json value;
  try {
    value = json::parse(text);
  } catch (const json::parse_error& error) {
    return with_hint(fail(Exit::manifest, "{}: not JSON, or cut short, at byte {}", name, error.byte),
                     new_lock);
  } catch (const json::exception&) {  // JSON, but a number that no type holds
    return with_hint(fail(Exit::manifest, "{}: holds a number that is too large", name), new_lock);
  }
  Lock lock;
  std::string problem;
  Object top(value, "the lock", problem);
  top.number("version", lock.version);
  if (problem.empty() && lock.version != Lock::current_version)
    return with_hint(fail(Exit::manifest, "{}: a lock of version {}, this program knows {}", name,
                          lock.version, Lock::current_version),
                     new_lock);
  top.text("name", lock.name);
  top.text("distribution", lock.distribution, false);
  std::string seal;
  top.hash("seal", seal);
  top.hash("tree_hash", lock.tree_hash);
  if (const json* entries = top.find("entries", true)) {
    if (!entries->is_array()) top.complain("\"entries\" must be a list");
    for (std::size_t i = 0; entries->is_array() && i < entries->size() && problem.empty(); ++i)
      lock.entries.push_back(read_entry((*entries)[i], i, problem));
  }
  read_frozen(top, lock, problem);
  read_volumes(top, lock, problem);
  top.finish();
  check_order(lock.entries, problem);
  if (!problem.empty()) return with_hint(fail(Exit::manifest, "{}: {}", name, problem), new_lock);
  return lock;
}

}  // namespace jail::tree
