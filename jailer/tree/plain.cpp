#include "jailer/tree/plain.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "jailer/tree/closure_check.h"
#include "jailer/tree/generations.h"
#include "jailer/tree/lock_of_plan.h"
#include "jailer/tree/populate.h"
#include "jailer/tree/secrets.h"
#include "jailer/tree/state.h"
#include "jailer/tree/tree_index.h"
#include "jailer/tree/verify_tree.h"
#include "jailer/tree/write_error.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

using namespace jail::tree;

constexpr std::size_t max_file = 256UL << 20U;
constexpr int open_directory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
constexpr const char* staged_tree = "tree";
constexpr const char* staged_files = "files";
constexpr const char* root_mark = "root";  ///< in files/: the inode of the root directory that they are of

/// The names of a plain tree in the directory above it.
struct Place {
  UniqueFd parent;
  std::string path;  ///< of the tree, for messages
  std::string tree;
  std::string files;
  std::string staging;

  static Result<Place> open(const std::string& directory) {
    if (!is_clean(directory) || directory == "/")
      return fail(Exit::usage, "{}: not an absolute path of a directory", quote(directory));
    Place place;
    auto parent = open_safe(std::string(parent_of(directory)), false, "place for a tree");
    if (!parent) return tl::unexpected(std::move(parent).error());
    place.parent = std::move(*parent);
    place.path = directory;
    place.tree = directory.substr(directory.rfind('/') + 1);
    place.files = place.tree + ".jail";
    place.staging = "." + place.tree + ".jail-new";
    return place;
  }

  [[nodiscard]] UniqueFd open_tree() const {
    return UniqueFd(::openat(parent.get(), tree.c_str(), open_directory));
  }
};

std::string inode_text(int fd) {
  struct stat status {};
  return ::fstat(fd, &status) == 0 ? std::to_string(status.st_ino) : std::string();
}

/// The directory of the lock that belongs to the tree whose root is `root`: where a build died between its
/// two switches, that in its staging.
UniqueFd files_of(const Place& place, int root) {
  const UniqueFd staging(::openat(place.parent.get(), place.staging.c_str(), open_directory));
  UniqueFd files(staging ? ::openat(staging.get(), staged_files, open_directory) : -1);
  if (files) {
    const auto mark = read_file_at(files.get(), root_mark, 64, false);
    if (mark && *mark == inode_text(root)) return files;
  }
  return UniqueFd(::openat(place.parent.get(), place.files.c_str(), open_directory));
}

/// The plan as it stands alone: volumes are directories of the tree, with their owners and what they start
/// with.
Plan standing_alone(const Plan& plan) {
  Plan alone = plan;
  const auto put = [&](const PlannedVolume& volume, const std::string& path, EntryType type,
                       const PlannedDirectory& like) {
    Entry& entry = alone.entries[path];
    entry.path = path;
    entry.type = type;
    entry.uid = like.uid;
    entry.gid = like.gid;
    entry.mode = like.mode;
    if (type == EntryType::file) entry.content = "";
    if (entry.why.empty()) entry.why = {{"mount", "", "volume " + volume.name}};
  };
  for (const PlannedVolume& volume : plan.volumes) {
    put(volume, volume.path, EntryType::directory, {"", volume.uid, volume.gid, volume.mode});
    for (const PlannedDirectory& directory : volume.directories)
      put(volume, volume.path + "/" + directory.path, EntryType::directory, directory);
    for (const std::string& file : volume.files)
      put(volume, volume.path + "/" + file, EntryType::file,
          {"", volume.uid, volume.gid, volume.mode & 0666U});
  }
  return alone;
}

/// Renames `from` to `to`, where what stands under `to` comes back under `from`; where the file system cannot
/// do that in one step, `aside` is used, and for a moment nothing has the name.
bool exchange(int from_dir, const char* from, int to_dir, const char* to, const char* aside) {
  if (::renameat2(from_dir, from, to_dir, to, RENAME_EXCHANGE) == 0) return true;
  if ((errno != EINVAL && errno != ENOSYS) || ::renameat(to_dir, to, from_dir, aside) != 0) return false;
  if (::renameat(from_dir, from, to_dir, to) == 0) return ::renameat(from_dir, aside, from_dir, from) == 0;
  const int error = errno;
  (void)::renameat(from_dir, aside, to_dir, to);
  errno = error;
  return false;
}

class PlainBuild {
 public:
  PlainBuild(const Plan& plan, Place place, RootDir sources, Store store)
      : plan_(standing_alone(plan)),
        place_(std::move(place)),
        sources_(std::move(sources)),
        store_(std::move(store)) {}

  Result<BuildResult> run(bool force) {
    JAIL_CHECK(open_staging());
    auto result = attempt(force);
    drop_staging();
    return result;
  }

 private:
  /// What is under the tree's name.
  enum class There : std::uint8_t { nothing, empty, ours };

  Result<BuildResult> attempt(bool force) {
    JAIL_CHECK(finish_dead_build());
    JAIL_TRY(there, look());
    JAIL_TRY(materials, collect_materials(plan_, sources_, store_, Sharing::none));
    JAIL_TRY(lock, lock_of_plan(plan_, materials));
    store_.save();
    BuildResult result;
    for (const LockEntry& entry : lock.entries) {
      if (entry.type != EntryType::file) continue;
      ++result.files;
      result.bytes += entry.size;
    }
    if (!force && there == There::ours && is_as(lock)) return result;
    if (there == There::ours) JAIL_CHECK(demand_replaceable(force));
    result.changed = true;
    JAIL_CHECK(stage(lock, materials));
    JAIL_CHECK(publish(there));
    return result;
  }

  Result<void> open_staging() {
    for (int attempt = 0; attempt < 16; ++attempt) {
      JAIL_TRY(fd, open_private(place_.parent.get(), place_.staging, shown(place_.staging), true));
      if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0)
        return with_hint(fail(Exit::busy, "{}: another command builds this tree", quote(place_.path)),
                         "wait until it is done, then try again");
      struct stat held {};
      struct stat named {};
      if (::fstat(fd.get(), &held) == 0 &&
          ::fstatat(place_.parent.get(), place_.staging.c_str(), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
          held.st_ino == named.st_ino) {
        staging_ = std::move(fd);
        return {};
      }
    }
    return fail(Exit::busy, "{}: built again and again", quote(place_.path));
  }

  /// A build that died behind the switch of the tree has left the lock; one that died before, nothing of use.
  Result<void> finish_dead_build() {
    const UniqueFd root = place_.open_tree();
    const UniqueFd files(::openat(staging_.get(), staged_files, open_directory));
    const auto mark = files ? read_file_at(files.get(), root_mark, 64, false) : Result<std::string>("");
    if (root && mark && !mark->empty() && *mark == inode_text(root.get())) JAIL_CHECK(switch_files());
    return empty_staging();
  }

  Result<There> look() {
    const auto refuse = [&](const std::string& why) {
      return with_hint(fail(Exit::cannot_create, "{}: {}", quote(place_.path), why),
                       "name a directory that is not there yet, or is empty");
    };
    const UniqueFd root = place_.open_tree();
    if (!root && errno == ENOENT) return There::nothing;
    if (!root) return refuse("is there, and is no directory");
    JAIL_TRY(names, names_in(root.get(), place_.path));
    const UniqueFd files = files_of(place_, root.get());
    if (!files && names.empty()) return There::empty;
    const auto text = files ? read_file_at(files.get(), generation::lock, max_file, false)
                            : Result<std::string>(fail(Exit::no_input, " "));
    const auto lock = text ? lock_from_json(*text, place_.files) : tl::unexpected(text.error());
    if (!lock) return refuse("is not empty, and no tree that jail build --into has made");
    if (lock->name != plan_.name) return refuse(fmt::format("is a tree of the jail {}", quote(lock->name)));
    for (const std::string& name : names) {
      const auto known = [&](const LockEntry& entry) { return entry.path == "/" + name; };
      if (std::none_of(lock->entries.begin(), lock->entries.end(), known))
        return refuse(fmt::format("holds {}, which jail build --into has not made", quote(name)));
    }
    old_ = std::move(*lock);
    return There::ours;
  }

  [[nodiscard]] bool is_as(const Lock& lock) const {
    if (to_json(lock) != to_json(old_)) return false;
    const auto verified = verify_plain(place_.path);
    if (!verified || !verified->differences.empty()) return false;
    const UniqueFd root = place_.open_tree();
    const UniqueFd files = root ? files_of(place_, root.get()) : UniqueFd();
    const std::string secrets = secrets_json(lock);
    const auto there = files ? read_file_at(files.get(), generation::secrets, max_file, false)
                             : Result<std::string>(fail(Exit::io, " "));
    return secrets.empty() || (there && *there == secrets);
  }

  /// Nobody may live in the old tree, nothing be mounted in it, and no state be lost with it.
  Result<void> demand_replaceable(bool force) const {
    const UniqueFd root = place_.open_tree();
    struct stat status {};
    if (!root || ::fstat(root.get(), &status) != 0)
      return fail_errno(Exit::io, errno, "{}: cannot open", quote(place_.path));
    const Roots roots = process_roots();
    if (const auto lived = roots.find({status.st_dev, status.st_ino}); lived != roots.end())
      return with_hint(fail(Exit::busy, "{}: pid {} lives in it", quote(place_.path), lived->second.front()),
                       "stop what runs in it, or build into another directory");
    const RootDir tree(place_.open_tree(), place_.path);
    for (const LockEntry& entry : old_.entries) {
      if (entry.type != EntryType::directory) continue;
      const UniqueFd directory = tree.beneath(entry.path, O_RDONLY | O_DIRECTORY);
      if (!directory && errno == EXDEV)
        return with_hint(
            fail(Exit::busy, "{}: something is mounted on {}", quote(place_.path), quote(entry.path)),
            "unmount it, then try again");
      if (directory && !force) JAIL_CHECK(demand_no_state(entry.path, directory.get()));
    }
    return {};
  }

  Result<void> demand_no_state(const std::string& path, int directory) const {
    const auto in_volume = [&](const PlannedVolume& volume) {
      return path == volume.path || path.starts_with(volume.path + "/");
    };
    if (std::none_of(old_.volumes.begin(), old_.volumes.end(), in_volume)) return {};
    JAIL_TRY(names, names_in(directory, path));
    for (const std::string& name : names) {
      const std::string below = path + "/" + name;
      const auto known = [&](const LockEntry& entry) { return entry.path == below; };
      if (std::none_of(old_.entries.begin(), old_.entries.end(), known))
        return with_hint(
            fail(Exit::config, "{}: holds state of its daemon: {}", quote(place_.path), quote(below)),
            "move that away; or build into another directory; or give it up (--force)");
    }
    return {};
  }

  Result<void> stage(const Lock& lock, const std::vector<Material>& materials) {
    if (::mkdirat(staging_.get(), staged_tree, 0700) != 0 ||
        ::mkdirat(staging_.get(), staged_files, 0700) != 0)
      return fail_write(errno, "{}: cannot make a directory", quote(shown(place_.staging)));
    UniqueFd root(::openat(staging_.get(), staged_tree, open_directory));
    const UniqueFd files(::openat(staging_.get(), staged_files, open_directory));
    if (!root || !files) return fail_errno(Exit::io, errno, "{}: cannot open", quote(shown(place_.staging)));
    const std::string inode = inode_text(root.get());
    const RootDir tree(std::move(root), shown(place_.staging) + "/tree");
    JAIL_CHECK(write_file(files.get(), generation::lock, to_json(lock)));
    if (const std::string secrets = secrets_json(lock); !secrets.empty())
      JAIL_CHECK(write_file(files.get(), generation::secrets, secrets));
    JAIL_CHECK(write_file(files.get(), root_mark, inode));
    JAIL_CHECK(populate(plan_, materials, sources_, tree, store_));
    JAIL_CHECK(check_closures(plan_, tree));
    JAIL_CHECK(take_index(tree, lock));
    if (::syncfs(staging_.get()) != 0) return fail_write(errno, "{}: cannot sync", quote(place_.path));
    return {};
  }

  Result<void> write_file(int dir, const char* name, const std::string& bytes) const {
    const std::string what = quote(shown(place_.staging) + "/" + name);
    const UniqueFd fd(::openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!fd) return fail_write(errno, "{}: cannot make the file", what);
    return write_whole(fd.get(), bytes, what);
  }

  Result<void> publish(There there) {
    const int parent = place_.parent.get();
    const bool done = there == There::ours
                          ? exchange(staging_.get(), staged_tree, parent, place_.tree.c_str(), "old-tree")
                          // An empty directory is replaced; one that is not any more is an error.
                          : ::renameat(staging_.get(), staged_tree, parent, place_.tree.c_str()) == 0;
    if (!done || ::fsync(parent) != 0)
      return fail_write(errno, "{}: cannot put the new tree in its place", quote(place_.path));
    return switch_files();
  }

  Result<void> switch_files() {
    const int parent = place_.parent.get();
    struct stat status {};
    const bool there = ::fstatat(parent, place_.files.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0;
    const bool done = there
                          ? exchange(staging_.get(), staged_files, parent, place_.files.c_str(), "old-files")
                          : ::renameat(staging_.get(), staged_files, parent, place_.files.c_str()) == 0;
    if (!done || ::fsync(parent) != 0)
      return fail_write(errno, "{}: cannot put the new lock in its place", quote(shown(place_.files)));
    return {};
  }

  Result<void> empty_staging() {
    for (const auto& [tree, files] : {std::pair{staged_tree, staged_files}, {"old-tree", "old-files"}}) {
      UniqueFd root(::openat(staging_.get(), tree, open_directory));
      const UniqueFd lock(::openat(staging_.get(), files, open_directory));
      if (root && lock) wipe_secrets(lock.get(), RootDir(std::move(root), place_.path));
    }
    JAIL_TRY(names, names_in(staging_.get(), shown(place_.staging)));
    for (const std::string& name : names)
      JAIL_CHECK(remove_tree(staging_.get(), name, shown(place_.staging) + "/" + name));
    return {};
  }

  /// What cannot be finished or removed is left to the next build.
  void drop_staging() {
    (void)finish_dead_build();
    (void)::unlinkat(place_.parent.get(), place_.staging.c_str(), AT_REMOVEDIR);
  }

  [[nodiscard]] std::string shown(const std::string& name) const {
    return std::string(parent_of(place_.path)) + "/" + name;
  }

  Plan plan_;
  Place place_;
  RootDir sources_;
  Store store_;
  UniqueFd staging_;
  Lock old_;
};

}  // namespace

Result<BuildResult> build_plain(const Instance& instance, const Plan& plan, const std::string& directory,
                                const BuildOptions& options) {
  JAIL_CHECK(demand_root("build a tree"));
  JAIL_CHECK(check_plan(plan));
  JAIL_TRY(sources, open_sources(plan.root));
  JAIL_TRY(place, Place::open(directory));
  JAIL_TRY(store, Store::open(instance));
  return PlainBuild(plan, std::move(place), std::move(sources), std::move(store)).run(options.force);
}

Result<VerifyResult> verify_plain(const std::string& directory, const VerifyOptions& options) {
  JAIL_CHECK(demand_root("verify a tree"));
  JAIL_TRY(place, Place::open(directory));
  UniqueFd root = place.open_tree();
  if (!root)
    return fail_errno(errno == ENOENT ? Exit::no_input : Exit::io, errno, "{}: cannot open",
                      quote(directory));
  const UniqueFd files = files_of(place, root.get());
  if (!files)
    return with_hint(fail_errno(Exit::no_input, errno, "{}.jail: cannot open", quote(directory)),
                     "only a tree that jail build --into has made can be verified by its path");
  return verify_tree(files.get(), directory + ".jail", RootDir(std::move(root), directory), Volumes::open,
                     options);
}

}  // namespace jail
