// verify(): a tree against its lock. First a walk by descriptors over all directories that the lock knows (no
// path is followed, no device opened, no other file system entered), then the bytes of the files, in several
// threads, the largest first. Files that share an inode are read once and reported each. A file of another
// size than its own is not read, and none further than the lock says, so that nothing can make this endless.
#include "jailer/tree/verify.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "jailer/closure/source_root.h"
#include "jailer/tree/lock_reader.h"
#include "jailer/tree/parallel.h"
#include "jailer/tree/remove_tree.h"
#include "jailer/tree/root_dir.h"
#include "jailer/tree/secrets.h"
#include "jailer/tree/store.h"
#include "jailer/tree/tree_index.h"
#include "jailer/tree/verify_tree.h"
#include "jailer/witness/witness.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

using namespace jail::tree;

constexpr std::size_t max_file = 256UL << 20U;

const char* format_name(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return "a directory";
    case S_IFREG:
      return "a file";
    case S_IFLNK:
      return "a symlink";
    case S_IFCHR:
      return "a character device";
    case S_IFBLK:
      return "a block device";
    case S_IFIFO:
      return "a fifo";
    case S_IFSOCK:
      return "a socket";
    default:
      return "of no known type";
  }
}

std::string short_hash(const std::string& sha256) {
  return sha256.substr(0, 16) + "...";
}

/// What the generation's index and the store's know of a tree; nothing: every entry is looked at in full.
class Stamps {
 public:
  Stamps() = default;
  Stamps(int files, const Instance& instance) {
    const auto text = read_file_at(files, generation::index, max_file, false);
    auto index =
        text ? tree_index_from_json(*text, generation::index) : Result<TreeIndex>(fail(Exit::io, " "));
    if (!index) return;
    entries_ = std::move(index->entries);
    store_ = read_store_index(instance);
  }

  /// Whether the `i`th entry of the lock, which is like `status` now, is as it was when its tree was made.
  [[nodiscard]] bool vouch(const LockEntry& entry, std::size_t i, const struct stat& status) const {
    if (i >= entries_.size() || !has_shape(status, entry)) return false;
    const Stamp now = stamp_of(status);
    if (now == entries_[i]) return true;
    // A link more or less of a shared object: then the store has its new stamp.
    if (entry.type != EntryType::file || now.inode != entries_[i].inode) return false;
    const auto object = store_.objects.find(object_of(entry).key());
    return object != store_.objects.end() && object->second == now;
  }

 private:
  std::vector<Stamp> entries_;
  StoreIndex store_;
};

class Verifier {
 public:
  /// `files` is the directory of the lock and of what it froze.
  Verifier(int files, std::string where, Lock lock, RootDir tree, Stamps stamps, Progress* progress,
           std::vector<PlannedVolume> open_volumes)
      : files_(files),
        where_(std::move(where)),
        lock_(std::move(lock)),
        tree_(std::move(tree)),
        stamps_(std::move(stamps)),
        progress_(progress),
        cursor_(tree_, Cursor::Kind::beneath),
        open_volumes_(std::move(open_volumes)) {}

  Result<VerifyResult> run() {
    add_secrets_of_lock();
    known_.reserve(lock_.entries.size());
    for (const LockEntry& entry : lock_.entries) known_.insert(entry.path);
    for (std::size_t i = 0; i < lock_.entries.size(); ++i) {
      const LockEntry& entry = lock_.entries[i];
      JAIL_CHECK(look_at(entry, i));
      if (entry.type == EntryType::file) result_.bytes += entry.size;
    }
    JAIL_CHECK(read_files());
    JAIL_CHECK(check_frozen());
    result_.entries = lock_.entries.size();
    result_.read = read_;
    std::sort(result_.differences.begin(), result_.differences.end(), [](const auto& a, const auto& b) {
      return std::tie(a.path, a.what, a.text) < std::tie(b.path, b.what, b.text);
    });
    return std::move(result_);
  }

 private:
  /// What the lock leaves out of secrets. Where it is gone they have no hash to be compared with.
  void add_secrets_of_lock() {
    if (std::none_of(lock_.entries.begin(), lock_.entries.end(), is_secret_file)) return;
    const auto text = read_file_at(files_, generation::secrets, max_file, false);
    if (!text)
      differ(generation::secrets, "missing", "missing");
    else if (const auto added = add_secrets(lock_, *text, generation::secrets); !added)
      differ(generation::secrets, "content", "does not fit the lock");
  }

  /// Files to read: all entries that show one inode.
  struct Job {
    std::uint64_t inode = 0;
    std::uint64_t size = 0;
    std::vector<const LockEntry*> entries;
  };

  template <class... Args>
  void differ(const std::string& path, const char* what, fmt::format_string<Args...> format, Args&&... args) {
    const std::scoped_lock guard(mutex_);
    result_.differences.push_back(
        {path, what, escape(path) + ": " + fmt::format(format, std::forward<Args>(args)...)});
  }

  Result<void> look_at(const LockEntry& entry, std::size_t index) {
    struct stat status {};
    Cursor::Place place;
    if (entry.path == "/") {
      if (::fstat(tree_.fd(), &status) != 0)
        return fail_errno(Exit::io, errno, "{}: cannot stat", tree_.shown("/"));
    } else {
      place = cursor_.at(entry.path);
      if (place.parent < 0 || ::fstatat(place.parent, place.name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP && errno != EXDEV)
          return fail_errno(Exit::io, errno, "{}: cannot stat", tree_.shown(entry.path));
        differ(entry.path, "missing", "missing");
        return {};
      }
    }
    if (stamps_.vouch(entry, index, status)) return {};
    if ((status.st_mode & S_IFMT) != format_of(entry.type)) {
      differ(entry.path, "type", "is {}, must be {}", format_name(status.st_mode),
             format_name(format_of(entry.type)));
      return {};
    }
    compare_metadata(entry, status);
    return compare_kind(entry, status, place);
  }

  void compare_metadata(const LockEntry& entry, const struct stat& status) {
    const std::uint32_t mode = status.st_mode & 07777U;
    if (entry.type != EntryType::symlink && mode != entry.mode)
      differ(entry.path, "mode", "mode is {:04o}, must be {:04o}", mode, entry.mode);
    if (status.st_uid != entry.uid || status.st_gid != entry.gid)
      differ(entry.path, "owner", "owner is {}:{}, must be {}:{}", status.st_uid, status.st_gid, entry.uid,
             entry.gid);
  }

  Result<void> compare_kind(const LockEntry& entry, const struct stat& status, const Cursor::Place& place) {
    switch (entry.type) {
      case EntryType::directory:
        return look_into(entry);
      case EntryType::file:
        if (entry.sha256.empty()) return {};  // a secret of which nothing is known any more; that is told
        if (static_cast<std::uint64_t>(status.st_size) != entry.size)
          differ(entry.path, "size", "size is {}, must be {}", status.st_size, entry.size);
        add_job(entry, status);
        return {};
      case EntryType::symlink:
        compare_target(entry, place);
        break;
      case EntryType::character_device:
      case EntryType::block_device:
        if (status.st_rdev != makedev(entry.major, entry.minor))
          differ(entry.path, "device", "is device {}:{}, must be {}:{}", major(status.st_rdev),
                 minor(status.st_rdev), entry.major, entry.minor);
        break;
    }
    // Not by a descriptor: opening a device does something. The parent's descriptor and l* follow nothing.
    const std::string path = fmt::format("/proc/self/fd/{}/{}", place.parent, place.name);
    return report_any_attribute(
        entry, [&](char* names, std::size_t size) { return ::llistxattr(path.c_str(), names, size); });
  }

  void compare_target(const LockEntry& entry, const Cursor::Place& place) {
    std::array<char, PATH_MAX> target{};
    const ssize_t length = ::readlinkat(place.parent, place.name, target.data(), target.size());
    const std::string_view text(target.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0)));
    if (text != entry.target)
      differ(entry.path, "target", "points to {}, must point to {}", quote(text), quote(entry.target));
  }

  /// What is in a directory and not in the lock. An added directory is named once, whatever it holds.
  Result<void> look_into(const LockEntry& entry) {
    const UniqueFd fd = tree_.beneath(entry.path, O_RDONLY | O_DIRECTORY);
    if (!fd) return fail_errno(Exit::io, errno, "{}: cannot open", tree_.shown(entry.path));
    JAIL_CHECK(report_any_attribute(
        entry, [&](char* names, std::size_t size) { return ::flistxattr(fd.get(), names, size); }));
    if (is_open(entry.path)) return {};
    JAIL_TRY(names, names_in(fd.get(), entry.path));
    for (const std::string& name : names) {
      const std::string path = (entry.path == "/" ? "" : entry.path) + "/" + name;
      struct stat status {};
      if (known_.contains(path) || ::fstatat(fd.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0)
        continue;
      differ(path, "added", "not in the lock ({})", format_name(status.st_mode));
    }
    return {};
  }

  /// Whether `path` is of a volume that the daemon may have filled.
  bool is_open(const std::string& path) const {
    return std::any_of(open_volumes_.begin(), open_volumes_.end(),
                       [&](const PlannedVolume& volume) { return is_at_or_below(path, volume.path); });
  }

  void add_job(const LockEntry& entry, const struct stat& status) {
    const auto [at, fresh] = job_of_.try_emplace(status.st_ino, jobs_.size());
    if (fresh) jobs_.push_back({status.st_ino, static_cast<std::uint64_t>(status.st_size), {}});
    jobs_[at->second].entries.push_back(&entry);
  }

  Result<void> read_files() {
    std::uint64_t bytes = 0;
    for (const Job& job : jobs_) bytes += size_to_read(job).value_or(0);
    if (progress_ != nullptr) progress_->total += bytes;
    std::stable_sort(jobs_.begin(), jobs_.end(), [](const Job& a, const Job& b) { return a.size > b.size; });
    return parallel(jobs_.size(), bytes,
                    [&](std::size_t i, Worker& worker) { return read_file(jobs_[i], worker); });
  }

  /// Nothing where the file already has another size than each of its entries.
  static std::optional<std::uint64_t> size_to_read(const Job& job) {
    const bool any = std::any_of(job.entries.begin(), job.entries.end(),
                                 [&](const LockEntry* entry) { return entry->size == job.size; });
    return any ? std::optional(job.size) : std::nullopt;
  }

  Result<void> read_file(const Job& job, Worker& worker) {
    const std::string& path = job.entries.front()->path;
    const UniqueFd fd = tree_.beneath(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    struct stat status {};
    if (!fd || ::fstat(fd.get(), &status) != 0)
      return fail_errno(Exit::io, errno, "{}: cannot open", tree_.shown(path));
    if (status.st_ino != job.inode || !S_ISREG(status.st_mode))
      return with_hint(fail(Exit::io, "{}: replaced while the tree was verified", tree_.shown(path)),
                       "verify again");
    JAIL_CHECK(compare_attributes(job, fd.get()));
    const auto size = size_to_read(job);
    if (!size) return {};
    JAIL_TRY(hash, hash_file(fd.get(), worker.hash, worker.buffer, path, {*size, progress_}));
    ++read_;
    for (const LockEntry* entry : job.entries)
      if (entry->size == *size && hash != entry->sha256)
        differ(entry->path, "content", "content differs (sha256 {}, must be {})", short_hash(hash),
               short_hash(entry->sha256));
    return {};
  }

  /// Of what is no file, and so has none by any lock.
  Result<void> report_any_attribute(const LockEntry& entry, const ListAttributes& list) {
    JAIL_TRY(names, attribute_names(list, tree_.shown(entry.path)));
    for (const std::string& name : names) differ(entry.path, "xattr", "{}", must_not_have(name));
    return {};
  }

  Result<void> compare_attributes(const Job& job, int fd) {
    for (const LockEntry* entry : job.entries) {
      JAIL_TRY(differences, attribute_differences(fd, entry->xattrs, tree_.shown(entry->path)));
      for (const std::string& difference : differences) differ(entry->path, "xattr", "{}", difference);
    }
    return {};
  }

  Result<void> check_frozen() {
    for (const auto& [name, sha256] : lock_.frozen) {
      const auto bytes = read_file_at(files_, name, max_file, false);
      if (!bytes && bytes.error().exit == Exit::no_input) {
        differ(name, "missing", "missing");
        continue;
      }
      if (!bytes) return fail(bytes.error().exit, "{}: {}", quote(where_), bytes.error().message);
      const std::string hash = sha256_hex(*bytes);
      if (hash != sha256)
        differ(name, "content", "content differs (sha256 {}, must be {})", short_hash(hash),
               short_hash(sha256));
    }
    return {};
  }

  int files_;
  std::string where_;
  Lock lock_;
  RootDir tree_;
  Stamps stamps_;
  Progress* progress_;
  Cursor cursor_;
  const std::vector<PlannedVolume> open_volumes_;
  std::unordered_set<std::string_view> known_;
  std::vector<Job> jobs_;
  std::unordered_map<std::uint64_t, std::size_t> job_of_;
  std::atomic<std::size_t> read_{0};
  std::mutex mutex_;
  VerifyResult result_;
};

}  // namespace

Result<VerifyResult> verify(const generation::Opened& opened, const VerifyOptions& options) {
  UniqueFd fd(::openat(opened.dir.get(), generation::tree, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail_errno(Exit::io, errno, "{}/tree: cannot open", quote(opened.path));
  auto result = tree::verify_tree(opened.dir.get(), opened.path,
                                  RootDir(std::move(fd), opened.path + "/tree"), Volumes::outside, options);
  // By its stamps a decayed file is whole: the next build is not to believe them.
  if (result && !result->differences.empty())
    for (const char* stamps : {generation::index, witness_name})
      (void)::unlinkat(opened.dir.get(), stamps, 0);
  return result;
}

Result<VerifyResult> tree::verify_tree(int files, const std::string& where, RootDir tree, Volumes volumes,
                                       const VerifyOptions& options) {
  const auto text = read_file_at(files, generation::lock, max_file, false);
  if (!text)
    return with_hint(fail(text.error().exit, "{}: {}", quote(where), text.error().message),
                     "without its lock nothing can be compared: make a new one (jail build --force)");
  JAIL_TRY(lock, lock_from_json(*text, where + "/" + generation::lock));
  std::vector<PlannedVolume> open;
  if (volumes == Volumes::open) open = lock.volumes;
  return Verifier(files, where, std::move(lock), std::move(tree),
                  options.quick != nullptr ? Stamps(files, *options.quick) : Stamps(), options.progress,
                  std::move(open))
      .run();
}

}  // namespace jail
