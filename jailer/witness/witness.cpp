#include "jailer/witness/witness.h"

#include <fcntl.h>

#include <algorithm>
#include <string_view>
#include <tuple>

#include "jailer/witness/fields.h"
#include "supervisor/base/io.h"
#include "supervisor/spec/generation.h"

namespace jail {
namespace {

constexpr std::string_view head = "jail-witness 1";
constexpr std::size_t max_size = 64UL << 20U;

/// The numbers that stand for a path. Those that do not count are 0; all are where nothing is there.
struct Sight {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t mode = 0;
  std::uint64_t owner = 0;
  std::uint64_t size = 0;
  std::int64_t mtime = 0;
  std::int64_t ctime = 0;
  bool operator==(const Sight&) const = default;
};

/// Nothing for an error that does not say whether something is there.
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

void put(FieldWriter& out, const Sight& sight) {
  out.number(sight.device);
  out.number(sight.inode);
  out.number(sight.mode);
  out.number(sight.owner);
  out.number(sight.size);
  out.number(sight.mtime);
  out.number(sight.ctime);
}

Sight take(FieldReader& in) {
  Sight sight;
  in.number(sight.device);
  in.number(sight.inode);
  in.number(sight.mode);
  in.number(sight.owner);
  in.number(sight.size);
  in.number(sight.mtime);
  in.number(sight.ctime);
  return sight;
}

/// Who builds, and for which instance: another program, or another list of directories, builds otherwise.
std::string maker(const Instance& instance) {
  const auto self = see("/proc/self/exe", LookAt::file);
  FieldWriter out;
  out.text(JAIL_VERSION);
  put(out, self.value_or(Sight{}));
  for (const std::string& part : {instance.state, instance.run, instance.log, instance.etc}) out.text(part);
  for (const std::string& directory : instance.manifest_dirs) out.text(directory);
  return std::move(out.bytes);
}

void put_head(FieldWriter& out, const Instance& instance, const Standing& standing) {
  out.text(head);
  const std::string by = maker(instance);
  out.number(by.size());
  out.bytes += by;
  out.number(standing.files);
  out.number(standing.bytes);
  out.number(standing.warnings.size());
  for (const std::string& warning : standing.warnings) out.text(warning);
}

/// Whether the head is one for this program and instance; fills `standing`.
bool take_head(FieldReader& in, const Instance& instance, Standing& standing) {
  if (in.text() != head) return false;
  std::size_t size = 0;
  in.number(size);
  const std::string by = maker(instance);
  in.expect(by);
  std::size_t warnings = 0;
  in.number(standing.files);
  in.number(standing.bytes);
  in.number(warnings);
  for (std::size_t i = 0; i < warnings && in.good(); ++i) standing.warnings.emplace_back(in.text());
  return in.good() && size == by.size();
}

}  // namespace

std::optional<Standing> still_standing(const Instance& instance, const std::string& name) {
  const auto current = generation::open_current(instance, name);
  if (!current) return std::nullopt;
  const auto bytes = read_file_at(current->dir.get(), witness_name, max_size, false);
  if (!bytes) return std::nullopt;
  Standing standing;
  standing.generation = current->number;
  FieldReader in(*bytes);
  if (!take_head(in, instance, standing)) return std::nullopt;
  std::string path;
  while (in.good() && !in.done()) {
    const std::string_view how = in.text();
    path = in.text();
    const Sight then = take(in);
    if (!in.good() || how.size() != 1) return std::nullopt;
    const auto now = see(path, LookAt{how.front()});
    if (!now || *now != then) return std::nullopt;
  }
  return in.good() ? std::optional(std::move(standing)) : std::nullopt;
}

void leave_witness(const Instance& instance, int generation, const Standing& standing, const Looks& looks) {
  if (looks.spoilt()) return;
  std::vector<const Look*> sorted;
  sorted.reserve(looks.all().size());
  for (const Look& look : looks.all()) sorted.push_back(&look);
  const auto place = [](const Look* look) { return std::tie(look->path, look->how); };
  const auto all = [](const Look* look) {
    return std::tie(look->path, look->how, look->device, look->inode);
  };
  std::sort(sorted.begin(), sorted.end(), [&](auto a, auto b) { return all(a) < all(b); });
  sorted.erase(std::unique(sorted.begin(), sorted.end(), [&](auto a, auto b) { return all(a) == all(b); }),
               sorted.end());
  FieldWriter out;
  put_head(out, instance, standing);
  const Look* before = nullptr;
  for (const Look* look : sorted) {
    if (before != nullptr && place(before) == place(look)) return;  // it changed between two looks
    before = look;
    const auto sight = see(look->path, look->how);
    if (!sight || sight->device != look->device || sight->inode != look->inode) return;
    if (sight->ctime >= looks.begun()) return;
    out.text({reinterpret_cast<const char*>(&look->how), 1});
    out.text(look->path);
    put(out, *sight);
  }
  (void)replace_file_at(generation, witness_name, out.bytes, 0600, false);
}

}  // namespace jail
