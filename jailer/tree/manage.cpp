// list(), running_in() and remove(): what is done with jails once they are built.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <set>

#include "jailer/tree/builder.h"
#include "jailer/tree/copy.h"
#include "jailer/tree/generations.h"
#include "jailer/tree/marks.h"
#include "jailer/tree/secrets.h"
#include "jailer/tree/state.h"
#include "jailer/tree/store.h"
#include "jailer/tree/tree_index.h"
#include "jailer/tree/volumes.h"
#include "jailer/tree/write_error.h"
#include "jailer/witness/memo.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/spec/provides.h"

namespace jail {
namespace {

using namespace jail::tree;

constexpr std::size_t max_file = 256UL << 20U;

/// Numbers of files and bytes: from the index, which is small, else from the lock.
void count(const generation::Opened& opened, Built& built) {
  const auto text = read_file_at(opened.dir.get(), generation::index, max_file, false);
  if (const auto index =
          text ? tree_index_from_json(*text, generation::index) : tl::unexpected(text.error())) {
    built.files = index->files;
    built.bytes = index->bytes;
  } else if (const auto lock = lock_of(opened)) {
    for (const LockEntry& entry : lock->entries) {
      built.files += entry.type == EntryType::file ? 1 : 0;
      built.bytes += entry.size;
    }
  }
}

/// The volumes that any generation of the jail `name` has.
Result<std::set<std::string>> volumes_of(const Instance& instance, const std::string& name) {
  std::set<std::string> volumes;
  const std::string path = instance.jail(name) + "/gen";
  const UniqueFd gens(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!gens && errno == ENOENT) return volumes;
  if (!gens) return fail_errno(Exit::io, errno, "{}: cannot open", quote(path));
  JAIL_TRY(numbers, names_in(gens.get(), path));
  for (const std::string& number : numbers) {
    if (number.starts_with('.')) continue;
    generation::Opened opened;
    opened.path = path + "/" + number;
    opened.dir.reset(::openat(gens.get(), number.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    auto lock = lock_of(opened);
    if (!lock)
      return with_hint(fail(lock.error().exit, "{}: so it cannot be told which volumes are still used",
                            lock.error().message),
                       fmt::format("run: jail build --force {}", name));
    for (const PlannedVolume& volume : lock->volumes) volumes.insert(volume.name);
  }
  return volumes;
}

/// Those volumes of `name` that no other jail has.
Result<std::set<std::string>> volumes_to_purge(const Instance& instance, const JailDir& jail) {
  JAIL_TRY(volumes, volumes_of(instance, jail.name));
  JAIL_TRY(names, names_in(jail.parent.get(), instance.jails()));
  for (const std::string& other : names) {
    if (other == jail.name || !valid_name(other)) continue;
    JAIL_TRY(used, volumes_of(instance, other));
    for (const std::string& volume : used) volumes.erase(volume);
  }
  return std::move(volumes);
}

/// The tree first and the lock last: killed meanwhile, it still can be told which volumes the jail has.
Result<void> remove_generations(const JailDir& jail, const UnlinkWatch& watch) {
  JAIL_TRY(numbers, generation_numbers(jail));
  for (const unsigned long number : numbers) {
    const std::string name = generation::file_name(number);
    const std::string path = jail.path + "/gen/" + name;
    const UniqueFd dir(
        ::openat(jail.generations.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!dir) return fail_errno(Exit::io, errno, "{}: cannot open", quote(path));
    JAIL_CHECK(remove_tree(dir.get(), generation::tree, path + "/tree", &watch));
    if (::renameat(jail.generations.get(), name.c_str(), jail.generations.get(), (".old-" + name).c_str()) !=
        0)
      return fail_write(errno, "{}: cannot remove", quote(path));
  }
  return {};
}

}  // namespace

Result<std::vector<Built>> list(const Instance& instance) {
  std::vector<Built> all;
  const UniqueFd jails(::open(instance.jails().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!jails && errno == ENOENT) return all;
  if (!jails && errno == EACCES) return tl::unexpected(demand_root("list the jails").error());
  if (!jails) return fail_errno(Exit::io, errno, "{}: cannot open", quote(instance.jails()));
  JAIL_TRY(names, names_in(jails.get(), instance.jails()));
  for (const std::string& name : names) {
    if (!valid_name(name)) continue;
    Built& built = all.emplace_back();
    built.name = name;
    const auto current = generation::open_current(instance, name);
    if (!current) continue;
    built.generation = current->number;
    count(*current, built);
    built.provides = provides_of(instance, name);
  }
  return all;
}

Result<std::vector<pid_t>> running_in(const Instance& instance, const std::string& name) {
  JAIL_TRY(jail, open_jail(instance, name, false));
  JAIL_TRY(numbers, generation_numbers(jail));
  const Roots roots = process_roots();
  std::vector<pid_t> all;
  for (const unsigned long number : numbers)
    for (const pid_t pid : processes_in(jail, number, roots)) all.push_back(pid);
  return all;
}

Result<std::vector<unsigned long>> generation_numbers(const Instance& instance, const std::string& name) {
  // That it is built, and by which words it is said if not.
  JAIL_CHECK(generation::open_current(instance, name));
  const std::string path = instance.jail(name) + "/gen";
  const UniqueFd gens(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!gens) return fail_errno(Exit::io, errno, "{}: cannot open", quote(path));
  return numbers_in(gens.get(), path);
}

Result<std::map<unsigned long, std::vector<pid_t>>> generations_in_use(const Instance& instance,
                                                                       const std::string& name) {
  JAIL_TRY(numbers, generation_numbers(instance, name));
  const Roots roots = process_roots();
  std::map<unsigned long, std::vector<pid_t>> found;
  for (const unsigned long number : numbers) {
    const auto opened = generation::open_number(instance, name, number);
    found[number] = opened ? processes_in(opened->dir.get(), roots) : std::vector<pid_t>();
  }
  return found;
}

Result<unsigned long> generation_before(const Instance& instance, const std::string& name,
                                        unsigned long number) {
  JAIL_TRY(numbers, generation_numbers(instance, name));
  const auto at = std::lower_bound(numbers.begin(), numbers.end(), number);
  if (at == numbers.begin())
    return with_hint(fail(Exit::no_input, "{}: no generation before {} is kept", name, number),
                     fmt::format("those that are there: jail history {}", name));
  return *(at - 1);
}

Result<Rollback> rollback(const Instance& instance, const std::string& name, unsigned long number) {
  JAIL_CHECK(demand_root("roll back a jail"));
  JAIL_TRY(jail, open_jail(instance, name, false));
  JAIL_TRY(current, generation::open_current(instance, name));
  Rollback moved{current.number, number};
  if (number == 0) {
    JAIL_TRY(before, generation_before(instance, name, current.number));
    moved.to = before;
  }
  JAIL_TRY(numbers, generation_numbers(jail));
  if (!std::binary_search(numbers.begin(), numbers.end(), moved.to))
    return with_hint(fail(Exit::no_input, "{}: no generation {}", name, moved.to),
                     fmt::format("those that are there: jail history {}", name));
  JAIL_TRY(opened, generation::open_number(instance, name, moved.to));
  JAIL_TRY(verified, verify(opened));
  if (!verified.differences.empty())
    return with_hint(
        fail(Exit::answer_no, "{}: generation {} is not as it was built: {}", name, moved.to,
             verified.differences.front().text),
        fmt::format("another one, or a new one: jail history {0}, jail build --force {0}", name));
  JAIL_TRY(lock, lock_of(opened));
  JAIL_TRY(volumes_there, check_volumes(instance, lock.volumes, true));
  (void)volumes_there;
  JAIL_CHECK(switch_current(jail, moved.to));
  return moved;
}

Result<void> remove_generation(const Instance& instance, const std::string& name, unsigned long number) {
  JAIL_CHECK(demand_root("remove a generation"));
  JAIL_TRY(jail, open_jail(instance, name, false));
  const auto current = generation::open_current(instance, name);
  if (current && current->number == number)
    return fail(Exit::busy, "{}: generation {} is the current one", name, number);
  JAIL_TRY(opened, generation::open_number(instance, name, number));
  // Claimed before the look at the processes: jaild holds what it is about to launch.
  if (::flock(opened.dir.get(), LOCK_EX | LOCK_NB) != 0 ||
      !processes_in(opened.dir.get(), process_roots()).empty())
    return fail(Exit::busy, "{}: generation {} is in use", name, number);
  JAIL_TRY(store, Store::open(instance));
  const UnlinkWatch watch = store.watch();
  JAIL_CHECK(remove_generation(jail, {number, std::move(opened.dir)}, watch));
  JAIL_CHECK(store.collect_garbage());
  store.save();
  return {};
}

Result<void> remove(const Instance& instance, const std::string& name, bool purge) {
  JAIL_CHECK(demand_root("remove a jail"));
  JAIL_TRY(jail, open_jail(instance, name, false));
  std::set<std::string> volumes;
  if (purge) {
    JAIL_TRY(found, volumes_to_purge(instance, jail));
    volumes = std::move(found);
  }
  JAIL_TRY(store, Store::open(instance));
  // `current` first: from here on the jail is not built, whatever happens.
  if (::unlinkat(jail.dir.get(), "current", 0) != 0 && errno != ENOENT)
    return fail_write(errno, "{}: cannot remove", quote(jail.path + "/current"));
  for (const std::string& volume : volumes) JAIL_CHECK(remove_volume(instance, volume));
  JAIL_CHECK(clean_stale(jail));
  wipe_generations(jail.generations.get(), "");
  const UnlinkWatch watch = store.watch();
  JAIL_CHECK(remove_generations(jail, watch));
  JAIL_CHECK(remove_tree(jail.dir.get(), "gen", jail.path + "/gen", &watch));
  for (const char* note : {stale_mark, refresh_note})
    for (const std::string& file : {std::string(note), fmt::format(".{}.new", note)})
      if (::unlinkat(jail.dir.get(), file.c_str(), 0) != 0 && errno != ENOENT)
        return fail_write(errno, "{}: cannot remove", quote(jail.path + "/" + file));
  if ((::unlinkat(jail.dir.get(), ".lock", 0) != 0 && errno != ENOENT) ||
      ::unlinkat(jail.parent.get(), name.c_str(), AT_REMOVEDIR) != 0)
    return fail_write(errno, "{}: cannot remove", quote(jail.path));
  ::unlinkat(store.fd(), memo_file(name).c_str(), 0);  // another instance of its template makes one again
  (void)store.collect_garbage();                       // while a build runs it is left to that, or to gc
  store.save();
  return {};
}

}  // namespace jail
