#include "jailer/witness/sight.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <tuple>
#include <vector>

namespace jail {

std::optional<Sight> see(const std::string& path, LookAt how) {
  struct stat status {};
  const bool follow = how == LookAt::file || how == LookAt::directory;
  if (::fstatat(AT_FDCWD, path.c_str(), &status, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0)
    return errno == ENOENT || errno == ENOTDIR ? std::optional(Sight{}) : std::nullopt;
  Sight sight;
  if (how == LookAt::presence) {
    sight.mode = S_IFMT;
    return sight;
  }
  sight.mode = status.st_mode;
  sight.owner = (std::uint64_t{status.st_uid} << 32U) | std::uint64_t{status.st_gid};
  if (how == LookAt::volume) return sight;
  sight.device = status.st_dev;
  sight.inode = status.st_ino;
  // On the way to a file, or as a mount's source, a directory is only the one that it is.
  if (how == LookAt::directory || !S_ISDIR(status.st_mode)) {
    sight.size = static_cast<std::uint64_t>(status.st_size);
    sight.mtime = nanoseconds(status.st_mtim);
    sight.ctime = nanoseconds(status.st_ctim);
  }
  return sight;
}

namespace {

/// All numbers of a sight, in the order in which they are written.
template <class S>
auto numbers_of(S& sight) {
  return std::tie(sight.device, sight.inode, sight.mode, sight.owner, sight.size, sight.mtime, sight.ctime);
}

}  // namespace

void put(FieldWriter& out, const Sight& sight) {
  std::apply([&out](const auto&... number) { (out.number(number), ...); }, numbers_of(sight));
}

Sight take_sight(FieldReader& in) {
  Sight sight;
  std::apply([&in](auto&... number) { (in.number(number), ...); }, numbers_of(sight));
  return sight;
}

std::optional<std::string> sights_of(const Looks& looks) {
  if (looks.spoilt()) return std::nullopt;
  std::vector<const Look*> sorted;
  sorted.reserve(looks.all().size());
  for (const Look& look : looks.all()) sorted.push_back(&look);
  const auto all = [](const Look* look) {
    return std::tie(look->path, look->how, look->device, look->inode);
  };
  std::sort(sorted.begin(), sorted.end(), [&](auto a, auto b) { return all(a) < all(b); });
  sorted.erase(std::unique(sorted.begin(), sorted.end(), [&](auto a, auto b) { return all(a) == all(b); }),
               sorted.end());
  FieldWriter out;
  const Look* before = nullptr;
  Sight entry;  // of the last LookAt::entry
  for (const Look* look : sorted) {
    const bool here = before != nullptr && before->path == look->path;
    if (here && before->how == look->how) return std::nullopt;  // it changed between two looks
    // What is no link looks the same whether links are followed or not: one look is enough.
    const bool known =
        here && before->how == LookAt::entry && look->how == LookAt::file && !S_ISLNK(entry.mode);
    const std::optional<Sight> sight = known ? entry : see(look->path, look->how);
    before = look;
    if (!sight || sight->device != look->device || sight->inode != look->inode) return std::nullopt;
    if (look->how == LookAt::entry) entry = *sight;
    if (known) continue;
    if (sight->ctime >= looks.begun()) return std::nullopt;
    out.text({reinterpret_cast<const char*>(&look->how), 1});
    out.text(look->path);
    put(out, *sight);
  }
  return std::move(out.bytes);
}

bool same_sights(FieldReader& in, Looks* also) {
  std::string path;
  while (in.good() && !in.done()) {
    const std::string_view how = in.text();
    path = in.text();
    const Sight then = take_sight(in);
    if (!in.good() || how.size() != 1) return false;
    const auto now = see(path, LookAt{how.front()});
    if (!now || *now != then) return false;
    if (also != nullptr) also->add(path, LookAt{how.front()}, then.device, then.inode);
  }
  return in.good();
}

}  // namespace jail
