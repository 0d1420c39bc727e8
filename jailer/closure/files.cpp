// [tree] files, directories and devices: what is copied as it is.
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>

#include "jailer/closure/work.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

constexpr std::size_t max_copied = 200'000;  // entries of one directory of `files`: more is a mistake

struct Ids {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
};

/// One `files` entry on its way into the tree.
struct Copy {
  Work& work;
  const manifest::File& file;
  const Reason& why;
  const Place& place;
  Ids owner;
  std::size_t count = 0;

  Entry entry(const std::string& path, EntryType type) const {
    Entry made;
    made.path = path;
    made.type = type;
    made.uid = owner.uid;
    made.gid = owner.gid;
    made.secret = file.secret;
    made.why.push_back(why);
    return made;
  }
};

Ids owner_of(Work& work, const manifest::File& file, const Place& place) {
  Ids ids;
  if (const auto uid = user_id(work.accounts, file.owner)) {
    ids.uid = *uid;
  } else {
    work.out.problem(place, no_such_user(file.owner, work.manifest.packages));
  }
  if (const auto gid = group_id(work.accounts, file.group)) {
    ids.gid = *gid;
  } else {
    work.out.problem(place, no_such_group(file.group, work.manifest.packages));
  }
  return ids;
}

/// What a copy keeps of its source's mode: nothing set-id, nothing for others to write, and of secrets
/// nothing for others at all.
mode_t widest_mode(const manifest::File& file) {
  return file.secret ? 0750U : 0755U;
}

const char* special_name(mode_t mode) {
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISFIFO(mode)) return "a fifo";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "no file, directory or link";
}

/// ELF files come with what they need, so that a directory of plugins works: those that can be run or are
/// named as libraries are looked into.
void needs_of_copy(Copy& copy, const std::string& source, const std::string& tree_path, mode_t mode) {
  const std::string name = base_name(source);
  const bool library = name.find(".so") != std::string::npos;
  if ((mode & 0111U) == 0 && !library) return;
  if (!copy.work.source.head(source, 4).starts_with("\x7f"
                                                    "ELF"))
    return;
  if (!copy.work.programs.insert(source).second) return;
  // One plugin of many may need what is not installed; one that was named must work.
  const PlanBuilder::Lenient lenient(copy.work.out, copy.count > 1);
  plan_needs(copy.work, source, tree_path, copy.place);
}

/// Of a single file: below a directory some may have them and others not.
void warn_of_missing_attributes(Copy& copy, const std::string& source) {
  if (copy.file.xattrs.empty()) return;
  const auto fd = copy.work.source.open_at(source, O_RDONLY | O_NOFOLLOW | O_NOCTTY);
  if (!fd) return;  // the build says so, too
  for (const std::string& name : copy.file.xattrs)
    if (::fgetxattr(fd->get(), name.c_str(), nullptr, 0) < 0)
      copy.work.out.warn(copy.place,
                         fmt::format("{} has no attribute {} that could be copied", quote(source), name));
}

void copy_regular(Copy& copy, const std::string& source, const std::string& to, mode_t mode) {
  Entry entry = copy.entry(to, EntryType::file);
  entry.source = source;
  entry.mode = copy.file.mode.value_or(mode & widest_mode(copy.file)) & 07777U;
  entry.xattrs.insert(copy.file.xattrs.begin(), copy.file.xattrs.end());
  if (copy.count == 1) warn_of_missing_attributes(copy, source);
  const std::string tree_path = copy.work.out.put(std::move(entry), copy.place);
  needs_of_copy(copy, source, tree_path, mode);
}

void copy_one(Copy& copy, const std::string& source, const std::string& to,
              std::vector<std::pair<std::string, std::string>>& directories) {
  const auto status = copy.work.source.status(source, false);
  if (!status) return copy.work.out.problem(copy.place, status.error());
  if (S_ISREG(status->st_mode)) return copy_regular(copy, source, to, status->st_mode);
  if (S_ISDIR(status->st_mode)) {
    Entry entry = copy.entry(to, EntryType::directory);
    entry.mode = status->st_mode & widest_mode(copy.file);
    copy.work.out.put(std::move(entry), copy.place);
    directories.emplace_back(source, to);
    return;
  }
  if (S_ISLNK(status->st_mode)) {
    const auto target = copy.work.source.link_target(source);
    if (!target) return copy.work.out.problem(copy.place, target.error());
    const std::string path = copy.work.out.put_link(to, *target, copy.why, copy.place);
    copy.work.links.push_back({path, source, copy.place});
    return;
  }
  copy.work.out.problem(copy.place, fmt::format("{} is {}: only files, directories and links can be copied",
                                                quote(source), special_name(status->st_mode)));
}

/// `source` (no link) and all below it.
void copy_all(Copy& copy, const std::string& source, const std::string& to) {
  std::vector<std::pair<std::string, std::string>> directories;
  copy.count = 1;
  copy_one(copy, source, to, directories);
  while (!directories.empty()) {
    const auto [dir, dir_to] = std::move(directories.back());
    directories.pop_back();
    const auto names = copy.work.source.names(dir);
    if (!names) {
      copy.work.out.problem(copy.place, names.error());
      continue;
    }
    for (const std::string& name : *names) {
      if (++copy.count > max_copied) {
        copy.work.out.problem(copy.place,
                              fmt::format("{}: more than {} files; a volume or config is bound instead of "
                                          "copied",
                                          quote(*copy.file.from), max_copied));
        return;
      }
      copy_one(copy, dir + "/" + name, dir_to + "/" + name, directories);
    }
  }
}

/// Devices that every host has, and that give away nothing.
struct KnownDevice {
  const char* name;
  unsigned major, minor;
};
constexpr std::array<KnownDevice, 5> known_devices = {
    {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}}};

}  // namespace

void plan_file(Work& work, const manifest::File& written, const Reason& why, const Place& place) {
  manifest::File file = written;
  const auto to = with_lib(work, written.to, place);
  const auto from = written.from ? with_lib(work, *written.from, place) : written.from;
  if (!to || (written.from && !from)) return;
  file.to = *to;
  file.from = from;
  Copy copy{work, file, why, place, owner_of(work, file, place)};
  if (file.text) {
    Entry entry = copy.entry(file.to, EntryType::file);
    entry.content = *file.text;
    entry.mode = file.mode.value_or(0644);
    work.out.put(std::move(entry), place);
    return;
  }
  if (!file.from)
    return work.out.problem(place, fmt::format("{}: neither `from` nor `text`", quote(file.to)));
  const auto located = work.resolver.locate(*file.from);
  if (!located) return work.out.problem(place, located.error());
  if (located->real == "/") return work.out.problem(place, "the whole root cannot be copied");
  copy_all(copy, located->real, file.to);
}

void plan_device(Work& work, const std::string& name, const Reason& why, const Place& place) {
  Entry entry;
  entry.path = "/dev/" + name;
  entry.type = EntryType::character_device;
  entry.mode = 0666;
  entry.why.push_back(why);
  const auto known = std::find_if(known_devices.begin(), known_devices.end(),
                                  [&](const KnownDevice& device) { return name == device.name; });
  if (known != known_devices.end()) {
    entry.device = makedev(known->major, known->minor);
  } else {
    const auto status = work.source.status(entry.path, false);
    if (!status || (!S_ISCHR(status->st_mode) && !S_ISBLK(status->st_mode))) {
      std::vector<std::string> names;
      for (const KnownDevice& device : known_devices) names.emplace_back(device.name);
      work.out.problem(place, fmt::format("no such device {} on this host; known: {}", quote(entry.path),
                                          fmt::join(names, ", ")));
      return;
    }
    if (S_ISBLK(status->st_mode)) entry.type = EntryType::block_device;
    entry.mode = status->st_mode & 0777U;
    entry.device = status->st_rdev;
  }
  work.out.put(std::move(entry), place);
}

void check_links(Work& work) {
  for (const CopiedLink& link : work.links) {
    const Entry* entry = work.out.find(link.path);
    if (entry == nullptr || entry->type != EntryType::symlink) continue;  // a conflict, told already
    const auto followed = work.out.follow(link.path);
    if (followed.escapes) {
      work.out.problem(link.place, fmt::format("{} -> {}: this link leads out of the tree, or in a circle",
                                               quote(link.source), quote(entry->target)));
      continue;
    }
    const bool mounted = std::any_of(work.mounts.begin(), work.mounts.end(), [&](const std::string& mount) {
      return is_at_or_below(followed.path, mount);
    });
    if (mounted || work.out.find(followed.path) != nullptr) continue;
    const std::string what = fmt::format("{} -> {}", quote(link.source), quote(entry->target));
    if (work.source.status(link.source)) {
      work.out.problem(link.place, fmt::format("{}: the tree lacks {} (add it to tree.files)", what,
                                               quote(followed.path)));
    } else {
      work.out.warn(link.place, fmt::format("{}: this link leads nowhere on the host either", what));
    }
  }
}

}  // namespace jail
