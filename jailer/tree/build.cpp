// build(): plan -> generation. The order is the whole of its safety:
//
//   look       sources, store, the current generation: changes nothing below the jail
//   unchanged? the lock that would result is the current one, byte for byte, and the tree is intact: done
//   stage      gen/.new-PID: tree, lock and the frozen files; synced once; index
//   publish    rename to its number, then `current` by rename of a symlink
//   tidy       generations that nobody needs, objects that no tree has
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "jailer/tree/builder.h"
#include "jailer/tree/closure_check.h"
#include "jailer/tree/generations.h"
#include "jailer/tree/lock_of_plan.h"
#include "jailer/tree/materials.h"
#include "jailer/tree/parallel.h"
#include "jailer/tree/populate.h"
#include "jailer/tree/secrets.h"
#include "jailer/tree/state.h"
#include "jailer/tree/tree_index.h"
#include "jailer/tree/volumes.h"
#include "jailer/tree/write_error.h"
#include "jailer/witness/witness.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

using namespace jail::tree;

constexpr std::size_t max_frozen = 256UL << 20U;

struct FrozenFile {
  const char* name;
  const std::string Frozen::*bytes;
};
constexpr FrozenFile frozen_files[] = {{generation::filter, &Frozen::filter},
                                       {generation::launch, &Frozen::launch_json},
                                       {generation::manifest, &Frozen::manifest_json}};

Result<Lock> make_lock(const Plan& plan, const std::vector<Material>& materials, const Frozen& frozen) {
  JAIL_TRY(lock, lock_of_plan(plan, materials));
  for (const FrozenFile& file : frozen_files) {
    lock.frozen[file.name] = sha256_hex(frozen.*file.bytes);
  }
  return std::move(lock);
}

class Build {
 public:
  Build(const Instance& instance, const Plan& plan, const Frozen& frozen, JailDir jail, Store store,
        RootDir sources)
      : instance_(instance),
        plan_(plan),
        frozen_(frozen),
        jail_(std::move(jail)),
        store_(std::move(store)),
        sources_(std::move(sources)) {}

  Result<BuildResult> run(const BuildOptions& options) {
    auto result = attempt(options);
    if (result) return result;
    // Nothing half-done, and a disk that was full for us does not stay full.
    remove_if_empty(jail_);
    (void)store_.collect_garbage();
    return result;
  }

 private:
  Result<BuildResult> attempt(const BuildOptions& options) {
    memo_ = options.memo;
    JAIL_CHECK(clean_stale(jail_));
    if (options.looks != nullptr) look_at_state(*options.looks);
    JAIL_TRY(numbers, generation_numbers(jail_));
    auto current = generation::open_current(instance_, plan_.name);
    const unsigned long now = current ? current->number : 0;
    JAIL_TRY(materials, collect_materials(plan_, sources_, store_));
    materials_ = std::move(materials);
    JAIL_CHECK(warn_of_mentions(options.looks));
    JAIL_TRY(lock, make_lock(plan_, materials_, frozen_));
    lock_ = std::move(lock);
    lock_text_ = to_json(lock_);
    checked_ = "checked " + closures_fingerprint(plan_, lock_);
    closures_known_ = memo_ != nullptr && memo_->find(checked_) != nullptr;
    secrets_text_ = secrets_json(lock_);
    JAIL_TRY(volumes_there, check_volumes(instance_, plan_.volumes, false));
    for (const LockEntry& entry : lock_.entries) {
      if (entry.type != EntryType::file) continue;
      ++result_.files;
      result_.bytes += entry.size;
    }
    if (!options.force && current && volumes_there && unchanged(*current)) {
      store_.save();
      result_.generation = now;
      if (options.looks != nullptr) testify(*current, *options.looks);
      remember();
      return result_;
    }
    if (options.force || !result_.mended.empty()) distrust_objects();
    result_.changed = true;
    result_.generation = std::max(now, numbers.empty() ? 0 : numbers.back()) + 1;
    JAIL_CHECK(make_generation());
    remember();
    tidy();
    return result_;
  }

  /// What a build of this jail reads beside its manifest and its sources.
  void look_at_state(Looks& looks) const {
    for (const char* file : package_database) looks.add(file, LookAt::directory);
    for (const PlannedVolume& volume : plan_.volumes) {
      const std::string path = instance_.volumes() + "/" + volume.name;
      looks.add(path, LookAt::volume);
      for (const std::string& file : volume.files) looks.add(path + "/" + file, LookAt::presence);
      for (const auto& directory : volume.directories)
        looks.add(path + "/" + directory.path, LookAt::presence);
    }
    looks.add(jail_.path + "/gen", LookAt::directory);
    looks.add(jail_.path + "/current", LookAt::entry);
  }

  /// The generation itself, just seen to be intact: all that it froze, and every entry of its tree.
  void testify(const generation::Opened& current, Looks& looks) const {
    looks.add(current.path + "/" + generation::lock, LookAt::entry);
    for (const FrozenFile& file : frozen_files) looks.add(current.path + "/" + file.name, LookAt::entry);
    looks.add(current.path + "/" + generation::secrets, LookAt::entry);
    const std::string tree = current.path + "/" + generation::tree;
    for (const LockEntry& entry : lock_.entries)
      looks.add(tree + entry.path, entry.type == EntryType::directory ? LookAt::directory : LookAt::entry);
    leave_witness(instance_, current.dir.get(),
                  {current.number, result_.files, result_.bytes, result_.warnings}, looks);
  }

  Result<void> warn_of_mentions(Looks* looks) {
    Mentions mentions;
    for (const Material& material : materials_)
      for (const std::string& library : material.mentions)
        mentions.try_emplace(library, material.entry->source);
    JAIL_TRY(unmet, unmet_mentions(plan_, mentions, looks));
    result_.warnings = plan_.warnings;
    result_.warnings.insert(result_.warnings.end(), unmet.begin(), unmet.end());
    return {};
  }

  static bool same_file(int dir, const char* name, const std::string& bytes) {
    const auto there = read_file_at(dir, name, max_frozen, false);
    return there && *there == bytes;
  }

  /// Whether the current generation already is what this build would make. Writes nothing below the jail.
  bool unchanged(const generation::Opened& current) {
    if (!same_file(current.dir.get(), generation::lock, lock_text_)) return false;
    if (!secrets_text_.empty() && !same_file(current.dir.get(), generation::secrets, secrets_text_))
      return false;
    for (const FrozenFile& file : frozen_files)
      if (!same_file(current.dir.get(), file.name, frozen_.*file.bytes)) return false;
    UniqueFd fd(
        ::openat(current.dir.get(), generation::tree, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd) return false;
    const RootDir tree(std::move(fd), current.path + "/tree");
    const auto text = read_file_at(current.dir.get(), generation::index, max_frozen, false);
    const auto index =
        text ? tree_index_from_json(*text, generation::index) : Result<TreeIndex>(fail(Exit::io, " "));
    const Intact intact = index ? quick_check(tree, lock_, *index, store_) : Intact::doubtful;
    if (intact != Intact::doubtful) return intact == Intact::yes;
    const auto verified = verify(current);
    if (!verified) return false;
    for (const Difference& difference : verified->differences) result_.mended.push_back(difference.text);
    if (!verified->differences.empty()) return false;
    if (const auto seen = take_index(tree, lock_)) remember_objects(*seen);
    return true;
  }

  /// Read them again: a disk that decays leaves the stamps as they were.
  void distrust_objects() {
    for (Material& material : materials_) {
      if (!material.shared) continue;
      store_.index.objects.erase(material.object().key());
      material.checked = false;
    }
  }

  /// The store learns what its objects look like now that their link counts changed.
  void remember_objects(const TreeIndex& index) {
    std::size_t next = 0;
    for (std::size_t i = 0; i < lock_.entries.size(); ++i) {
      if (lock_.entries[i].type != EntryType::file) continue;
      const Material& material = materials_[next++];
      if (material.shared) store_.remember(material.object(), index.entries[i]);
    }
  }

  Result<void> write_file(int dir, const char* name, const std::string& bytes) const {
    const std::string shown = quote(jail_.path + "/gen/.new/" + name);
    const UniqueFd fd(::openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!fd) return fail_write(errno, "{}: cannot make the file", shown);
    return write_whole(fd.get(), bytes, shown);
  }

  Result<void> make_generation() {
    JAIL_CHECK(check_objects(sources_, materials_, store_));
    JAIL_TRY(staging, Staging::make(jail_));
    JAIL_CHECK(stage(staging.fd()));
    JAIL_TRY(volumes_there, check_volumes(instance_, plan_.volumes, true));
    (void)volumes_there;
    JAIL_CHECK(staging.publish(result_.generation));
    return switch_current(jail_, result_.generation);
  }

  Result<void> stage(int dir) {
    const std::string where = jail_.path + "/gen/.new/tree";
    if (::mkdirat(dir, generation::tree, 0700) != 0)
      return fail_write(errno, "{}: cannot make the directory", quote(where));
    const RootDir tree(
        UniqueFd(::openat(dir, generation::tree, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)), where);
    // The lock first: what a build that dies leaves has its secrets wiped by it.
    JAIL_CHECK(write_file(dir, generation::lock, lock_text_));
    JAIL_CHECK(populate(plan_, materials_, sources_, tree, store_));
    const std::int64_t made = file_clock();
    if (!secrets_text_.empty()) JAIL_CHECK(write_file(dir, generation::secrets, secrets_text_));
    for (const FrozenFile& file : frozen_files) JAIL_CHECK(write_file(dir, file.name, frozen_.*file.bytes));
    // While the disk works; and not again for what was found good before.
    const bool known = closures_known_;
    auto closures =
        in_background([this, &tree, known] { return known ? Result<void>() : check_closures(plan_, tree); });
    if (::syncfs(dir) != 0) return fail_write(errno, "{}: cannot sync", quote(jail_.path));
    JAIL_CHECK(closures.get());
    if (memo_ != nullptr) memo_->put(checked_, "good");
    // Stamps are worth something once the clock of file times has moved on (stamp.h). The sync mostly took
    // that long.
    const bool fine = has_fine_stamps(dir);
    for (int patience = 0; !fine && file_clock() <= made && patience < 20; ++patience) {
      const timespec moment{0, 1'000'000};
      ::nanosleep(&moment, nullptr);
    }
    JAIL_TRY(index, take_index(tree, lock_));
    remember_objects(index);
    // Not synced: a torn index is no index, and bytes are read instead.
    return write_file(dir, generation::index, to_json(index));
  }

  void remember() const {
    if (memo_ != nullptr) memo_->save(instance_, plan_.name, store_.fd());
  }

  /// The new generation stands: what goes wrong here is no failure of the build, and the next one tries
  /// again.
  void tidy() {
    const UnlinkWatch watch = store_.watch();
    if (const auto spare = spare_generations(jail_, result_.generation, kept_before_current))
      for (const Spare::Doomed& doomed : spare->doomed) (void)remove_generation(jail_, doomed, watch);
    (void)store_.collect_garbage();
    store_.save();
  }

  const Instance& instance_;
  const Plan& plan_;
  const Frozen& frozen_;
  JailDir jail_;
  Store store_;
  RootDir sources_;
  std::vector<Material> materials_;
  Memo* memo_ = nullptr;
  std::string checked_;  ///< the memo's name for it that the closures of this tree are as they must be
  bool closures_known_ = false;
  Lock lock_;
  std::string lock_text_;
  std::string secrets_text_;
  BuildResult result_;
};

}  // namespace

Result<BuildResult> build(const Instance& instance, const Plan& plan, const Frozen& frozen,
                          const BuildOptions& options) {
  JAIL_CHECK(demand_root("build a jail"));
  JAIL_CHECK(check_plan(plan));
  JAIL_TRY(sources, open_sources(plan.root));
  JAIL_TRY(jail, open_jail(instance, plan.name, true));
  auto store = Store::open(instance);
  if (!store) {
    remove_if_empty(jail);
    return tl::unexpected(std::move(store).error());
  }
  return Build(instance, plan, frozen, std::move(jail), std::move(*store), std::move(sources)).run(options);
}

Result<LockDiff> preview(const Instance& instance, const Plan& plan, const Frozen& frozen,
                         unsigned long number) {
  JAIL_CHECK(demand_root("compare a jail with the host"));
  JAIL_CHECK(check_plan(plan));
  JAIL_TRY(there, number == 0 ? generation::open_current(instance, plan.name)
                              : generation::open_number(instance, plan.name, number));
  JAIL_TRY(locked, lock_with_secrets(there));
  JAIL_TRY(sources, open_sources(plan.root));
  JAIL_TRY(store, Store::open(instance));
  JAIL_TRY(materials, collect_materials(plan, sources, store));
  JAIL_TRY(lock, make_lock(plan, materials, frozen));
  store.save();
  return compare(locked, lock);
}

}  // namespace jail
