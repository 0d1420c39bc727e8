#include "jailer/tree/store.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <thread>

#include "jailer/tree/state.h"
#include "jailer/tree/write_error.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail::tree {
namespace {

constexpr std::size_t max_index = 256UL << 20U;

UniqueFd open_lock(int dir, const char* name) {
  return UniqueFd(::openat(dir, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
}

bool looks_like(const struct stat& status, const Object& object) {
  return S_ISREG(status.st_mode) && (status.st_mode & 07777U) == object.mode && status.st_uid == object.uid &&
         status.st_gid == object.gid && static_cast<std::uint64_t>(status.st_size) == object.size;
}

}  // namespace

std::string Object::key() const {
  const std::string key = fmt::format("{}-{:04o}-{}-{}", sha256, mode, uid, gid);
  return xattrs.empty() ? key : key + "-x" + hash_of(xattrs);
}

StoreIndex read_store_index(const Instance& instance) {
  const auto dir = open_state_part(instance, "store", false);
  if (!dir) return {};
  const auto bytes = read_file_at(dir->get(), "index", max_index, false);
  auto index = bytes ? StoreIndex::from_bytes(*bytes) : std::nullopt;
  return index ? std::move(*index) : StoreIndex{};
}

Result<Store> Store::open(const Instance& instance) {
  Store store;
  store.path_ = instance.store();
  JAIL_TRY(dir, open_state_part(instance, "store", true));
  store.dir_ = std::move(dir);
  JAIL_TRY(objects, open_private(store.dir_.get(), "objects", store.shown("objects"), true));
  store.objects_ = std::move(objects);
  JAIL_TRY(temporaries, open_private(store.dir_.get(), "tmp", store.shown("tmp"), true));
  store.temporaries_ = std::move(temporaries);
  store.lock_ = open_lock(store.dir_.get(), ".lock");
  if (!store.lock_) return fail_write(errno, "{}: cannot open", quote(store.shown(".lock")));
  // Alone here: nobody else's temporary files can be alive.
  if (::flock(store.lock_.get(), LOCK_EX | LOCK_NB) == 0) {
    JAIL_TRY(left, names_in(store.temporaries_.get(), store.shown("tmp")));
    for (const std::string& name : left) ::unlinkat(store.temporaries_.get(), name.c_str(), 0);
  }
  while (::flock(store.lock_.get(), LOCK_SH) != 0)
    if (errno != EINTR) return fail_errno(Exit::io, errno, "{}: cannot lock", quote(store.shown(".lock")));
  if (auto bytes = read_file_at(store.dir_.get(), "index", max_index, false)) {
    if (auto index = StoreIndex::from_bytes(*bytes)) {
      store.index = std::move(*index);
      store.loaded_ = std::move(*bytes);
    }
  }
  return store;
}

Result<Store::Temporary> Store::make_temporary() const {
  for (int attempt = 0; attempt < 1000; ++attempt) {
    Temporary temporary;
    temporary.name = fmt::format("{}-{}", ::getpid(), (*serial_)++);
    temporary.fd.reset(::openat(temporaries_.get(), temporary.name.c_str(),
                                O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (temporary.fd) return temporary;
    if (errno != EEXIST) break;
  }
  return fail_write(errno, "{}: cannot make a file", quote(shown("tmp")));
}

Result<void> Store::ingest_once(const RootDir& root, const Entry& file, Object& object, struct stat& status,
                                Worker& worker, bool& changed) const {
  JAIL_TRY(opened, open_source(root, file.source));
  JAIL_TRY(xattrs, read_attributes(opened.fd.get(), file.xattrs, object.mode, opened.shown));
  JAIL_TRY(temporary, make_temporary());
  const std::string name = shown("tmp/" + temporary.name);
  auto copied = copy_bytes(opened, temporary.fd.get(), name, true, worker, writeback_.get());
  changed = copied && !unchanged(opened);
  if (!copied || changed) {
    ::unlinkat(temporaries_.get(), temporary.name.c_str(), 0);
    if (!copied) return tl::unexpected(std::move(copied).error());
    return fail(Exit::io, "{}: changed while it was copied", opened.shown);
  }
  status = opened.status;
  object.sha256 = std::move(*copied);
  object.size = static_cast<std::uint64_t>(opened.status.st_size);
  object.xattrs = std::move(xattrs);
  if (!whole(object, worker)) return admit(temporary, object);
  ::unlinkat(temporaries_.get(), temporary.name.c_str(), 0);
  return {};
}

Result<void> Store::ingest(const RootDir& root, const Entry& file, Object& object, struct stat& status,
                           Worker& worker) const {
  bool changed = false;
  auto done = ingest_once(root, file, object, status, worker, changed);
  if (!done && changed) done = ingest_once(root, file, object, status, worker, changed);
  if (!done && changed) done.error().hint = "something is writing to it: build again when that is done";
  return done;
}

/// Owner, mode and attributes of a copy of `object`. Owner before mode: a chown takes set-id bits away.
Result<void> Store::dress(int fd, const Object& object, const std::string& shown) {
  if (::fchown(fd, object.uid, object.gid) != 0 || ::fchmod(fd, object.mode) != 0)
    return fail_write(errno, "{}: cannot set owner and mode", shown);
  return set_attributes(fd, object.xattrs, shown);
}

/// Gives a finished temporary file its name, and all that comes before that.
Result<void> Store::admit(Temporary& temporary, const Object& object) const {
  const std::string key = object.key();
  auto done = dress(temporary.fd.get(), object, quote(shown("objects/" + key)));
  if (done && ::renameat(temporaries_.get(), temporary.name.c_str(), objects_.get(), key.c_str()) != 0)
    done = fail_write(errno, "{}: cannot finish the object", quote(shown("objects/" + key)));
  if (!done) ::unlinkat(temporaries_.get(), temporary.name.c_str(), 0);
  return done;
}

const Stamp* Store::known(const std::string& key) const {
  const auto at = index.objects.find(key);
  return at == index.objects.end() ? nullptr : &at->second;
}

bool Store::whole(const Object& object, Worker& worker) const {
  const std::string key = object.key();
  struct stat status {};
  if (::fstatat(objects_.get(), key.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0 ||
      !looks_like(status, object))
    return false;
  const Stamp* stamp = known(key);
  if (stamp != nullptr && *stamp == stamp_of(status)) return true;
  const UniqueFd fd(::openat(objects_.get(), key.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return false;
  const auto hash = hash_file(fd.get(), worker.hash, worker.buffer, key);
  if (!hash || *hash != object.sha256) return false;
  const auto differences = attribute_differences(fd.get(), object.xattrs, key);
  return differences && differences->empty();
}

Result<void> Store::ensure(const RootDir& root, const Entry& file, const Object& object,
                           Worker& worker) const {
  if (whole(object, worker)) return {};
  Object fresh = object;
  struct stat status {};
  JAIL_CHECK(ingest(root, file, fresh, status, worker));
  if (fresh.sha256 == object.sha256 && fresh.xattrs == object.xattrs) return {};
  return with_hint(fail(Exit::io, "{}: changed during the build", root.shown(file.source)), "build again");
}

/// The object has all the links that the file system allows: an equal one takes its name.
Result<void> Store::renew(const Object& object) const {
  const std::string key = object.key();
  OpenSource old;
  old.shown = quote(shown("objects/" + key));
  old.fd.reset(::openat(objects_.get(), key.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!old.fd || ::fstat(old.fd.get(), &old.status) != 0)
    return fail_errno(Exit::io, errno, "{}: cannot open", old.shown);
  JAIL_TRY(temporary, make_temporary());
  Worker worker;
  auto copied = copy_bytes(old, temporary.fd.get(), temporary.name, true, worker);
  if (copied && *copied == object.sha256) return admit(temporary, object);
  ::unlinkat(temporaries_.get(), temporary.name.c_str(), 0);
  if (!copied) return tl::unexpected(std::move(copied).error());
  return fail(Exit::io, "{}: damaged while it was copied", old.shown);
}

Result<void> Store::link(const Object& object, int parent, const char* name, const std::string& path) const {
  const std::string key = object.key();
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (::linkat(objects_.get(), key.c_str(), parent, name, 0) == 0) return {};
    if (errno == EXDEV || errno == EOPNOTSUPP) return copy_out(object, parent, name, path);
    if (errno != EMLINK || attempt != 0) break;
    JAIL_CHECK(renew(object));
  }
  return fail_write(errno, "{}: cannot link the object {}", quote(path), key);
}

/// The store is on another file system than the tree, or on one without links.
Result<void> Store::copy_out(const Object& object, int parent, const char* name,
                             const std::string& path) const {
  const std::string key = object.key();
  OpenSource whole;
  whole.shown = quote(shown("objects/" + key));
  whole.fd.reset(::openat(objects_.get(), key.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!whole.fd || ::fstat(whole.fd.get(), &whole.status) != 0)
    return fail_errno(Exit::io, errno, "{}: cannot open", whole.shown);
  const UniqueFd copy(::openat(parent, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!copy) return fail_write(errno, "{}: cannot make the file in the new tree", quote(path));
  Worker worker;
  JAIL_CHECK(copy_bytes(whole, copy.get(), path, false, worker));
  return dress(copy.get(), object, quote(path));
}

void Store::remember(const Object& object, const Stamp& linked) {
  const std::string key = object.key();
  struct stat status {};
  if (::fstatat(objects_.get(), key.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
      status.st_ino == linked.inode)
    index.objects[key] = linked;
  else
    index.objects.erase(key);
}

UnlinkWatch Store::watch() {
  keys_by_inode_.clear();
  for (const auto& [key, stamp] : index.objects) keys_by_inode_.emplace(stamp.inode, key);
  UnlinkWatch watch;
  auto pending = std::make_shared<std::string>();
  watch.before = [this, pending](const struct stat& status) {
    pending->clear();
    const auto key = keys_by_inode_.find(status.st_ino);
    if (key != keys_by_inode_.end() && index.objects.at(key->second) == stamp_of(status))
      *pending = key->second;
  };
  watch.after = [this, pending](const struct stat& before) {
    struct stat now {};
    if (!pending->empty() && ::fstatat(objects_.get(), pending->c_str(), &now, AT_SYMLINK_NOFOLLOW) == 0 &&
        now.st_ino == before.st_ino && now.st_size == before.st_size &&
        nanoseconds(now.st_mtim) == nanoseconds(before.st_mtim))
      index.objects[*pending] = stamp_of(now);
  };
  return watch;
}

void Store::save() {
  if (index.to_bytes() == loaded_) return;
  const UniqueFd lock = open_lock(dir_.get(), ".index.lock");
  if (!lock || ::flock(lock.get(), LOCK_EX) != 0) return;
  if (auto bytes = read_file_at(dir_.get(), "index", max_index, false); bytes && *bytes != loaded_) {
    if (auto theirs = StoreIndex::from_bytes(*bytes)) {
      index.sources.merge(theirs->sources);
      index.objects.merge(theirs->objects);
    }
  }
  std::string bytes = index.to_bytes();
  if (replace_file_at(dir_.get(), "index", bytes, 0600, false)) loaded_ = std::move(bytes);
}

Result<Store::Garbage> Store::collect_garbage(std::chrono::milliseconds patience) {
  constexpr std::chrono::milliseconds pause{20};
  while (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (patience < pause) {
      // The failed conversion may have dropped our share of the lock.
      (void)::flock(lock_.get(), LOCK_SH);
      return with_hint(fail(Exit::busy, "{}: a build uses the store", quote(path_)),
                       "its objects stay until the next build or gc");
    }
    std::this_thread::sleep_for(pause);
    patience -= pause;
  }
  JAIL_TRY(names, names_in(objects_.get(), shown("objects")));
  Garbage garbage;
  for (const std::string& name : names) {
    struct stat status {};
    if (::fstatat(objects_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0 || status.st_nlink > 1 ||
        ::unlinkat(objects_.get(), name.c_str(), 0) != 0)
      continue;
    index.objects.erase(name);
    ++garbage.objects;
    garbage.bytes += static_cast<std::uint64_t>(status.st_blocks) * 512;
  }
  (void)::flock(lock_.get(), LOCK_SH);
  return garbage;
}

Result<Store::Garbage> Store::garbage_without(const std::map<ino_t, nlink_t>& links) const {
  JAIL_TRY(names, names_in(objects_.get(), shown("objects")));
  Garbage garbage;
  for (const std::string& name : names) {
    struct stat status {};
    if (::fstatat(objects_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
    const auto fewer = links.find(status.st_ino);
    if (status.st_nlink > 1 + (fewer == links.end() ? 0 : fewer->second)) continue;
    ++garbage.objects;
    garbage.bytes += static_cast<std::uint64_t>(status.st_blocks) * 512;
  }
  return garbage;
}

}  // namespace jail::tree
