// collect_garbage(): what no jail needs any more. Generations first, each jail under its own lock, then the
// store, alone. The locks are never held together: nobody waits for us but for the time of one removal.
#include <fcntl.h>
#include <sys/stat.h>

#include <chrono>
#include <map>

#include "jailer/tree/builder.h"
#include "jailer/tree/generations.h"
#include "jailer/tree/state.h"
#include "jailer/tree/store.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

using namespace jail::tree;

constexpr std::chrono::seconds patience{10};  // with builds that hold the store
constexpr unsigned max_depth = 64;

/// What trees take on the disk, and which inodes they share.
struct Footprint {
  std::uint64_t bytes = 0;
  std::map<ino_t, nlink_t> shared;

  void add(int directory, unsigned depth = 0) {
    const auto names = names_in(directory, "");
    if (!names || depth == max_depth) return;
    for (const std::string& name : *names) {
      struct stat status {};
      if (::fstatat(directory, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
      if (S_ISREG(status.st_mode) && status.st_nlink > 1) {
        ++shared[status.st_ino];
        continue;
      }
      bytes += static_cast<std::uint64_t>(status.st_blocks) * 512;
      if (!S_ISDIR(status.st_mode)) continue;
      const UniqueFd below(
          ::openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (below) add(below.get(), depth + 1);
    }
  }
};

class Collection {
 public:
  Collection(const Instance& instance, const GcOptions& options, Store& store)
      : instance_(instance), options_(options), store_(store), watch_(store.watch()) {}

  Result<GcResult> run() {
    JAIL_TRY(jails, open_state_part(instance_, "jails", false));
    JAIL_TRY(names, names_in(jails.get(), instance_.jails()));
    for (const std::string& name : names) {
      if (!valid_name(name)) continue;
      auto done = look_at(name);
      if (done || done.error().exit == Exit::no_input) continue;  // removed meanwhile
      if (done.error().exit != Exit::busy) return tl::unexpected(std::move(done).error());
      result_.busy.push_back(std::move(done).error());
    }
    JAIL_CHECK(clean_store());
    return std::move(result_);
  }

 private:
  Result<void> look_at(const std::string& name) {
    JAIL_TRY(jail, open_jail(instance_, name, false));
    if (!options_.dry_run) JAIL_CHECK(clean_stale(jail));
    // Without a current generation nothing is old.
    const auto current = generation::open_current(instance_, name);
    JAIL_TRY(spare, spare_generations(jail, current ? current->number : 0, options_.keep));
    for (const Spare::Doomed& doomed : spare.doomed) {
      Footprint own;
      own.add(doomed.claim.get());
      if (!options_.dry_run) JAIL_CHECK(remove_generation(jail, doomed, watch_));
      result_.generations.push_back({name, doomed.number, own.bytes});
      result_.bytes += own.bytes;
      for (const auto& [inode, links] : own.shared) shared_[inode] += links;
    }
    for (Spare::Used& used : spare.used)
      result_.used.push_back({name, used.number, std::move(used.processes)});
    if (!options_.dry_run) remove_if_empty(jail);
    return {};
  }

  Result<void> clean_store() {
    auto garbage = options_.dry_run ? store_.garbage_without(shared_) : store_.collect_garbage(patience);
    if (!garbage && garbage.error().exit != Exit::busy) return tl::unexpected(std::move(garbage).error());
    if (!garbage) {
      result_.busy.push_back(std::move(garbage).error());
    } else {
      result_.objects = garbage->objects;
      result_.bytes += garbage->bytes;
    }
    if (!options_.dry_run) store_.save();
    return {};
  }

  const Instance& instance_;
  const GcOptions& options_;
  Store& store_;
  UnlinkWatch watch_;
  std::map<ino_t, nlink_t> shared_;
  GcResult result_;
};

}  // namespace

Result<GcResult> collect_garbage(const Instance& instance, const GcOptions& options) {
  JAIL_CHECK(demand_root("collect garbage"));
  // Nothing was ever built here: nothing is made here either.
  if (auto jails = open_state_part(instance, "jails", false); !jails) {
    if (jails.error().exit == Exit::no_input) return GcResult{};
    return tl::unexpected(std::move(jails).error());
  }
  JAIL_TRY(store, Store::open(instance));
  return Collection(instance, options, store).run();
}

}  // namespace jail
