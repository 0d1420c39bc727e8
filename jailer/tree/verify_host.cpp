// verify_host(): what the host has now against what a lock has of it. Sources that several entries have are
// read once.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "jailer/closure/packages.h"
#include "jailer/tree/attributes.h"
#include "jailer/tree/copy.h"
#include "jailer/tree/parallel.h"
#include "jailer/tree/store.h"
#include "jailer/tree/verify.h"

namespace jail {
namespace {

using namespace jail::tree;

class HostVerifier {
 public:
  HostVerifier(const Lock& lock, RootDir root, const VerifyOptions& options)
      : root_(std::move(root)), options_(options) {
    if (options.quick != nullptr) known_ = read_store_index(*options.quick).sources;
    for (const LockEntry& entry : lock.entries)
      if (!entry.source.empty()) by_source_[entry.source].push_back(&entry);
  }

  Result<HostResult> run() {
    Cursor cursor(root_, Cursor::Kind::in_root);
    for (const auto& [source, entries] : by_source_) {
      jobs_.push_back({&source, &entries, 0, {}, {}});
      JAIL_CHECK(look_at(cursor, jobs_.back()));
      result_.files += entries.size();
      result_.bytes += jobs_.back().size;
    }
    JAIL_CHECK(read_unknown());
    JAIL_CHECK(collect());
    return std::move(result_);
  }

 private:
  struct Job {
    const std::string* source = nullptr;
    const std::vector<const LockEntry*>* entries = nullptr;
    std::uint64_t size = 0;
    std::optional<const char*> gone;  ///< why there is nothing to read
    std::string sha256;
  };

  Result<void> look_at(Cursor& cursor, Job& job) const {
    const Cursor::Place place = cursor.at(*job.source);
    struct stat status {};
    if (place.parent < 0 || ::fstatat(place.parent, place.name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno != ENOENT && errno != ENOTDIR)
        return fail_errno(Exit::io, errno, "{}: cannot stat", root_.shown(*job.source));
      job.gone = "gone";
      return {};
    }
    if (!S_ISREG(status.st_mode)) {
      job.gone = "type";
      return {};
    }
    job.size = static_cast<std::uint64_t>(status.st_size);
    const auto known = known_.find(root_.name() == "/" ? *job.source : root_.name() + *job.source);
    if (known != known_.end() && known->second.device == status.st_dev &&
        known->second.stamp == stamp_of(status))
      job.sha256 = known->second.sha256;
    return {};
  }

  /// A size that no entry has says enough.
  static bool worth_reading(const Job& job) {
    return !job.gone && job.sha256.empty() &&
           std::any_of(job.entries->begin(), job.entries->end(),
                       [&](const LockEntry* entry) { return entry->size == job.size; });
  }

  /// Of one entry of a source that is there: two may have its ACL by two modes.
  Result<bool> same_attributes(const LockEntry& entry) const {
    if (entry.xattrs.empty()) return true;
    JAIL_TRY(source, open_source(root_, entry.source));
    std::set<std::string> names;
    for (const auto& [name, value] : entry.xattrs) names.insert(name);
    JAIL_TRY(there, read_attributes(source.fd.get(), names, entry.mode, source.shown));
    return there == entry.xattrs;
  }

  /// What is no longer as `entry` has it; null for nothing.
  Result<const char*> change_of(const Job& job, const LockEntry& entry) const {
    if (job.gone) return *job.gone;
    if (job.sha256 != entry.sha256) return "content";
    JAIL_TRY(same, same_attributes(entry));
    return same ? nullptr : "xattr";
  }

  Result<void> read_unknown() {
    std::vector<Job*> unknown;
    std::uint64_t bytes = 0;
    for (Job& job : jobs_) {
      if (!worth_reading(job)) continue;
      unknown.push_back(&job);
      bytes += job.size;
    }
    std::stable_sort(unknown.begin(), unknown.end(),
                     [](const Job* a, const Job* b) { return a->size > b->size; });
    if (options_.progress != nullptr) options_.progress->total += bytes;
    result_.read = unknown.size();
    return parallel(unknown.size(), bytes,
                    [&](std::size_t i, Worker& worker) { return read_one(*unknown[i], worker); });
  }

  Result<void> read_one(Job& job, Worker& worker) const {
    const auto source = open_source(root_, *job.source);
    if (!source && source.error().exit == Exit::no_input) {  // it went while we looked
      job.gone = "gone";
      return {};
    }
    if (!source) return tl::unexpected(source.error());
    JAIL_TRY(hash, hash_file(source->fd.get(), worker.hash, worker.buffer, source->shown,
                             {job.size, options_.progress}));
    job.sha256 = std::move(hash);
    return {};
  }

  Result<void> collect() {
    std::vector<std::string> asked;
    for (const Job& job : jobs_)
      for (const LockEntry* entry : *job.entries) {
        JAIL_TRY(what, change_of(job, *entry));
        if (what == nullptr) continue;
        result_.changes.push_back(
            {*job.source, entry->path, what, entry->package, entry->package_version, {}});
        asked.push_back(*job.source);
      }
    if (asked.empty()) return {};
    JAIL_TRY(versions, installed_versions(root_.name()));
    for (HostChange& change : result_.changes)
      if (const auto version = versions.find(change.package); version != versions.end())
        change.version = version->second;
    std::sort(result_.changes.begin(), result_.changes.end(), [](const auto& a, const auto& b) {
      return std::tie(a.package, a.source, a.path) < std::tie(b.package, b.source, b.path);
    });
    return {};
  }

  RootDir root_;
  const VerifyOptions& options_;
  std::map<std::string, SourceRecord> known_;
  std::map<std::string, std::vector<const LockEntry*>> by_source_;
  std::vector<Job> jobs_;
  HostResult result_;
};

}  // namespace

Result<HostResult> verify_host(const Lock& lock, const std::string& root, const VerifyOptions& options) {
  JAIL_TRY(opened, RootDir::open(root));
  return HostVerifier(lock, std::move(opened), options).run();
}

}  // namespace jail
