#include "jailer/tree/tree_index.h"

#include <fcntl.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "supervisor/base/quote.h"

namespace jail::tree {
namespace {

using nlohmann::json;

bool stat_entry(Cursor& cursor, const RootDir& tree, const std::string& path, struct stat& status) {
  if (path == "/") return ::fstat(tree.fd(), &status) == 0;
  const Cursor::Place place = cursor.at(path);
  return place.parent >= 0 && ::fstatat(place.parent, place.name, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

}  // namespace

mode_t format_of(EntryType type) {
  switch (type) {
    case EntryType::directory:
      return S_IFDIR;
    case EntryType::file:
      return S_IFREG;
    case EntryType::symlink:
      return S_IFLNK;
    case EntryType::character_device:
      return S_IFCHR;
    case EntryType::block_device:
      return S_IFBLK;
  }
  return 0;
}

bool has_shape(const struct stat& status, const LockEntry& entry) {
  const bool link = entry.type == EntryType::symlink;
  if ((S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode)) &&
      status.st_rdev != makedev(entry.major, entry.minor))
    return false;
  return (status.st_mode & S_IFMT) == format_of(entry.type) && status.st_uid == entry.uid &&
         status.st_gid == entry.gid && (link || (status.st_mode & 07777U) == entry.mode) &&
         (entry.type != EntryType::file || static_cast<std::uint64_t>(status.st_size) == entry.size);
}

Object object_of(const LockEntry& entry) {
  return {entry.sha256, entry.size, entry.mode, entry.uid, entry.gid, entry.xattrs};
}

std::string to_json(const TreeIndex& index) {
  json entries = json::array();
  for (const Stamp& stamp : index.entries)
    entries.push_back({stamp.inode, stamp.size, stamp.mtime, stamp.ctime});
  const json object = {{"version", TreeIndex::current_version},
                       {"files", index.files},
                       {"bytes", index.bytes},
                       {"entries", std::move(entries)}};
  return object.dump() + "\n";
}

Result<TreeIndex> tree_index_from_json(std::string_view text, std::string_view name) {
  const auto bad = [&] { return fail(Exit::manifest, "{}: not an index of ours", name); };
  const json object = json::parse(text, nullptr, false);
  if (!object.is_object()) return bad();
  // By reference: a copy of nests without end overflows the stack.
  const auto member = [&](const char* key) -> const json& {
    static const json none;
    const auto at = object.find(key);
    return at == object.end() ? none : *at;
  };
  const json& files = member("files");
  const json& bytes = member("bytes");
  const json& entries = member("entries");
  if (member("version") != TreeIndex::current_version || !files.is_number_unsigned() ||
      !bytes.is_number_unsigned() || !entries.is_array())
    return bad();
  TreeIndex index{files.get<std::size_t>(), bytes.get<std::uint64_t>(), {}};
  index.entries.reserve(entries.size());
  for (const json& entry : entries) {
    if (!entry.is_array() || entry.size() != 4) return bad();
    for (const json& number : entry)
      if (!number.is_number_integer()) return bad();
    index.entries.push_back({entry[0].get<std::uint64_t>(), entry[1].get<std::uint64_t>(),
                             entry[2].get<std::int64_t>(), entry[3].get<std::int64_t>()});
  }
  return index;
}

Result<TreeIndex> take_index(const RootDir& tree, const Lock& lock) {
  TreeIndex index;
  index.entries.reserve(lock.entries.size());
  Cursor cursor(tree, Cursor::Kind::beneath);
  for (const LockEntry& entry : lock.entries) {
    struct stat status {};
    if (!stat_entry(cursor, tree, entry.path, status))
      return fail_errno(Exit::io, errno, "{}: cannot stat in the new tree", quote(entry.path));
    if (!has_shape(status, entry))
      return fail(Exit::internal, "{}: is not what was made in the new tree", quote(entry.path));
    index.entries.push_back(stamp_of(status));
    if (entry.type != EntryType::file) continue;
    ++index.files;
    index.bytes += entry.size;
  }
  return index;
}

Intact quick_check(const RootDir& tree, const Lock& lock, const TreeIndex& index, const Store& store) {
  if (index.entries.size() != lock.entries.size()) return Intact::doubtful;
  Intact answer = Intact::yes;
  Cursor cursor(tree, Cursor::Kind::beneath);
  for (std::size_t i = 0; i < lock.entries.size(); ++i) {
    const LockEntry& entry = lock.entries[i];
    struct stat status {};
    if (!stat_entry(cursor, tree, entry.path, status) || !has_shape(status, entry)) return Intact::no;
    const Stamp now = stamp_of(status);
    if (now == index.entries[i]) continue;
    // Another tree may have linked the same object since: then the store knows its new stamp.
    Stamp same_but_ctime = index.entries[i];
    same_but_ctime.ctime = now.ctime;
    const Stamp* known = nullptr;
    if (entry.type == EntryType::file && now == same_but_ctime) known = store.known(object_of(entry).key());
    if (known == nullptr || *known != now) answer = Intact::doubtful;
  }
  return answer;
}

}  // namespace jail::tree
