// The tree hash: SHA-256, in lower-case hex, of the domain tag "jail-tree-v1" and then one record for each
// entry in the order of their paths' bytes. Tag and records are made of fields, each ended by a NUL byte (no
// field can hold one), so that no two trees have the same bytes. The fields of a record, numbers in decimal
// without leading zeros, the mode in octal:
//   path  type  mode  uid  gid  and then   file: size sha256   symlink: target   *_device: major minor
// and of a file with extended attributes the name and the value of each, sorted, the value as in the lock (no
// name begins as a path does);
// but of a file that is secret the word "secret" in the place of all that (secrets.h);
// with the type's name as in the lock ("directory", "file", "symlink", "character_device", "block_device").
// What a tree is made of and nothing else: no times, inodes or link counts; sources, packages and reasons are
// left to the seal.
//
// The seal: SHA-256 of "jail-lock-v1", a NUL byte, and the lock's own text with an empty seal. It does not
// keep a root out (who may write the lock can write a seal); it tells an edited lock from a changed tree.
#include "jailer/tree/lock.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <nlohmann/json.hpp>

#include "jailer/tree/attributes_json.h"
#include "jailer/tree/hash.h"
#include "jailer/tree/lock_reader.h"
#include "jailer/tree/lock_text.h"
#include "jailer/tree/secrets.h"
#include "supervisor/base/io.h"

namespace jail {
namespace {

using nlohmann::json;
using tree::to_text;

constexpr std::array<const char*, 5> type_names = {"directory", "file", "symlink", "character_device",
                                                   "block_device"};
static_assert(static_cast<std::size_t>(EntryType::block_device) + 1 == type_names.size());

constexpr std::size_t max_lock = 256UL << 20U;

std::string octal(std::uint32_t mode) {
  return fmt::format("{:04o}", mode);
}

json reasons_json(const std::vector<Reason>& why) {
  json list = json::array();
  for (const Reason& reason : why) {
    json object = {{"kind", to_text(reason.kind)}};
    if (!reason.by.empty()) object["by"] = to_text(reason.by);
    if (!reason.detail.empty()) object["detail"] = to_text(reason.detail);
    list.push_back(std::move(object));
  }
  return list;
}

json entry_json(const LockEntry& entry) {
  json object = {{"path", to_text(entry.path)},
                 {"type", tree::type_name(entry.type)},
                 {"mode", octal(entry.mode)},
                 {"uid", entry.uid},
                 {"gid", entry.gid},
                 {"why", reasons_json(entry.why)}};
  switch (entry.type) {
    case EntryType::file:
      if (entry.secret) break;
      object["size"] = entry.size;
      object["sha256"] = entry.sha256;
      if (!entry.xattrs.empty()) object["xattrs"] = tree::attributes_json(entry.xattrs);
      break;
    case EntryType::symlink:
      object["target"] = to_text(entry.target);
      break;
    case EntryType::character_device:
    case EntryType::block_device:
      object["major"] = entry.major;
      object["minor"] = entry.minor;
      break;
    case EntryType::directory:
      break;
  }
  if (!entry.source.empty()) object["source"] = to_text(entry.source);
  if (!entry.package.empty()) object["package"] = to_text(entry.package);
  if (!entry.package_version.empty()) object["package_version"] = to_text(entry.package_version);
  if (!entry.package_architecture.empty())
    object["package_architecture"] = to_text(entry.package_architecture);
  if (entry.secret) object["secret"] = true;
  return object;
}

json volume_json(const PlannedVolume& volume) {
  return {{"name", to_text(volume.name)},
          {"path", to_text(volume.path)},
          {"uid", volume.uid},
          {"gid", volume.gid},
          {"mode", octal(volume.mode)}};
}

template <class List, class Convert>
void add_lines(std::string& text, const List& list, const Convert& convert) {
  const char* separator = "\n  ";
  for (const auto& item : list) {
    text += separator;
    text += convert(item).dump();
    separator = ",\n  ";
  }
  text += list.empty() ? "]" : "\n ]";
}

std::string text_with_seal(const Lock& lock, const std::string& seal, std::size_t& seal_at) {
  std::string text;
  text.reserve(512 * (lock.entries.size() + 2));
  text += "{\n ";
  if (!lock.distribution.empty())
    text += "\"distribution\": " + json(to_text(lock.distribution)).dump() + ",\n ";
  text += "\"entries\": [";
  add_lines(text, lock.entries, entry_json);
  text += ",\n \"frozen\": " + json(lock.frozen).dump();
  text += ",\n \"name\": " + json(to_text(lock.name)).dump();
  text += ",\n \"seal\": \"";
  seal_at = text.size();
  text += seal;
  text += "\",\n \"tree_hash\": \"" + lock.tree_hash;
  text += "\",\n \"version\": " + std::to_string(lock.version);
  text += ",\n \"volumes\": [";
  add_lines(text, lock.volumes, volume_json);
  return text + "\n}\n";
}

void add_record(fmt::memory_buffer& records, const LockEntry& entry) {
  auto out = std::back_inserter(records);
  const char nul = '\0';
  fmt::format_to(out, "{}{}{}{}{:o}{}{}{}{}{}", entry.path, nul, tree::type_name(entry.type), nul, entry.mode,
                 nul, entry.uid, nul, entry.gid, nul);
  switch (entry.type) {
    case EntryType::file:
      if (entry.secret) {
        fmt::format_to(out, "secret{}", nul);
        break;
      }
      fmt::format_to(out, "{}{}{}{}", entry.size, nul, entry.sha256, nul);
      for (const auto& [name, value] : entry.xattrs)
        fmt::format_to(out, "{}{}{}{}", name, nul, tree::attribute_text(value), nul);
      break;
    case EntryType::symlink:
      fmt::format_to(out, "{}{}", entry.target, nul);
      break;
    case EntryType::character_device:
    case EntryType::block_device:
      fmt::format_to(out, "{}{}{}{}", entry.major, nul, entry.minor, nul);
      break;
    case EntryType::directory:
      break;
  }
}

}  // namespace

const char* tree::type_name(EntryType type) {
  return type_names.at(static_cast<std::size_t>(type));
}

std::optional<EntryType> tree::type_from_name(std::string_view name) {
  const auto* at = std::find(type_names.begin(), type_names.end(), name);
  if (at == type_names.end()) return std::nullopt;
  return static_cast<EntryType>(at - type_names.begin());
}

std::string tree_hash(const std::vector<LockEntry>& entries) {
  fmt::memory_buffer records;
  records.append(std::string_view("jail-tree-v1\0", 13));
  for (const LockEntry& entry : entries) add_record(records, entry);
  return sha256_hex({records.data(), records.size()});
}

std::string to_json(const Lock& lock) {
  std::size_t seal_at = 0;
  std::string text = text_with_seal(lock, "", seal_at);
  text.insert(seal_at, sha256_hex(std::string("jail-lock-v1\0", 13) + text));
  return text;
}

Result<Lock> lock_from_json(std::string_view text, std::string_view name) {
  JAIL_TRY(lock, tree::read_lock(text, name));
  const std::string hash = tree_hash(lock.entries);
  if (hash != lock.tree_hash || to_json(lock) != text)
    return with_hint(fail(Exit::manifest, "{}: edited since the build: its {} does not match its content",
                          name, hash != lock.tree_hash ? "tree hash" : "seal"),
                     tree::new_lock);
  return lock;
}

Result<Lock> lock_of(const generation::Opened& opened) {
  JAIL_TRY(text, read_file_at(opened.dir.get(), generation::lock, max_lock, false));
  return lock_from_json(text, opened.path + "/" + generation::lock);
}

Result<Lock> lock_with_secrets(const generation::Opened& opened) {
  JAIL_TRY(lock, lock_of(opened));
  if (const auto secrets = read_file_at(opened.dir.get(), generation::secrets, max_lock, false))
    (void)tree::add_secrets(lock, *secrets, generation::secrets);
  return std::move(lock);
}

}  // namespace jail
