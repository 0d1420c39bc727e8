#include "jailer/tree/generations.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <memory>
#include <thread>

#include "jailer/tree/copy.h"
#include "jailer/tree/secrets.h"
#include "jailer/tree/state.h"
#include "jailer/tree/write_error.h"
#include "supervisor/base/quote.h"
#include "supervisor/spec/generation.h"

namespace jail::tree {
namespace {

/// Whether the open file `fd` still is `name` in `dir`: `jail remove` takes the lock's file away with the
/// jail.
bool still_there(int dir, const char* name, int fd) {
  struct stat held {};
  struct stat named {};
  return ::fstat(fd, &held) == 0 && ::fstatat(dir, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
         held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

/// Takes the lock, alone; waits as long as gc or a rollback may need, not as long as a build may.
bool lock_soon(int fd) {
  constexpr std::chrono::milliseconds pause{10};
  for (int attempt = 0; ::flock(fd, LOCK_EX | LOCK_NB) != 0; ++attempt) {
    if (attempt == 100) return false;
    std::this_thread::sleep_for(pause);
  }
  return true;
}

bool is_stale(const std::string& name) {
  return name.starts_with(".new-") || name.starts_with(".old-");
}

unsigned long parse_number(const std::string& name) {
  unsigned long number = 0;
  const char* end = name.data() + name.size();
  if (std::from_chars(name.data(), end, number).ptr != end || name != generation::file_name(number)) return 0;
  return number;
}

}  // namespace

Result<JailDir> open_jail(const Instance& instance, const std::string& name, bool make) {
  if (!valid_name(name)) return fail(Exit::usage, "{} cannot be the name of a jail", quote(name));
  JailDir jail;
  jail.name = name;
  jail.path = instance.jail(name);
  const auto not_built = [&](Error error) -> tl::unexpected<Error> {
    if (make || error.exit != Exit::no_input) return tl::unexpected(std::move(error));
    return with_hint(fail(Exit::no_input, "{}: this jail has not been built", name),
                     fmt::format("run: jail build {}", name));
  };
  auto jails = open_state_part(instance, "jails", make);
  if (!jails) return not_built(std::move(jails).error());
  jail.parent = std::move(*jails);
  for (int attempt = 0; attempt < 16; ++attempt) {
    auto dir = open_private(jail.parent.get(), name, jail.path, make);
    if (!dir) return not_built(std::move(dir).error());
    jail.dir = std::move(*dir);
    jail.lock.reset(::openat(jail.dir.get(), ".lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!jail.lock && errno == ENOENT) continue;  // removed since we opened it
    if (!jail.lock) return fail_write(errno, "{}: cannot open", quote(jail.path + "/.lock"));
    if (!lock_soon(jail.lock.get()))
      return with_hint(fail(Exit::busy, "{}: another command builds or removes this jail", name),
                       "wait until it is done, then try again");
    if (!still_there(jail.dir.get(), ".lock", jail.lock.get()) ||
        !still_there(jail.parent.get(), name.c_str(), jail.dir.get()))
      continue;
    JAIL_TRY(generations, open_private(jail.dir.get(), "gen", jail.path + "/gen", true));
    jail.generations = std::move(generations);
    return jail;
  }
  return fail(Exit::busy, "{}: made and removed again and again", name);
}

Result<std::vector<unsigned long>> numbers_in(int generations, const std::string& path) {
  JAIL_TRY(names, names_in(generations, path));
  std::vector<unsigned long> numbers;
  for (const std::string& name : names)
    if (const unsigned long number = parse_number(name); number > 0) numbers.push_back(number);
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

Result<std::vector<unsigned long>> generation_numbers(const JailDir& jail) {
  return numbers_in(jail.generations.get(), jail.path + "/gen");
}

Result<void> clean_stale(const JailDir& jail) {
  JAIL_TRY(names, names_in(jail.generations.get(), jail.path + "/gen"));
  if (std::any_of(names.begin(), names.end(), is_stale)) wipe_generations(jail.generations.get(), ".");
  for (const std::string& name : names)
    if (is_stale(name)) JAIL_CHECK(remove_tree(jail.generations.get(), name, jail.path + "/gen/" + name));
  if (::unlinkat(jail.dir.get(), ".current.new", 0) != 0 && errno != ENOENT)
    return fail_errno(Exit::io, errno, "{}: cannot remove", quote(jail.path + "/.current.new"));
  return {};
}

void remove_if_empty(const JailDir& jail) {
  // In the order of remove(): who waits for the lock sees that its file is gone.
  if (::unlinkat(jail.dir.get(), "gen", AT_REMOVEDIR) == 0 && ::unlinkat(jail.dir.get(), ".lock", 0) == 0)
    (void)::unlinkat(jail.parent.get(), jail.name.c_str(), AT_REMOVEDIR);
}

Result<Staging> Staging::make(const JailDir& jail) {
  const std::string name = fmt::format(".new-{}", ::getpid());
  JAIL_CHECK(remove_tree(jail.generations.get(), name, jail.path + "/gen/" + name));
  JAIL_TRY(fd, open_private(jail.generations.get(), name, jail.path + "/gen/" + name, true));
  return Staging(jail, name, std::move(fd));
}

Staging::Staging(Staging&& other) noexcept
    : jail_(other.jail_), name_(std::exchange(other.name_, {})), fd_(std::move(other.fd_)) {}

Staging::~Staging() {
  fd_.reset();
  if (name_.empty()) return;
  wipe_generations(jail_->generations.get(), name_);
  (void)remove_tree(jail_->generations.get(), name_, jail_->path + "/gen/" + name_);
}

Result<void> Staging::publish(unsigned long number) {
  const std::string name = generation::file_name(number);
  const int gens = jail_->generations.get();
  if (::renameat(gens, name_.c_str(), gens, name.c_str()) != 0)
    return fail_write(errno, "{}: cannot rename into place", quote(jail_->path + "/gen/" + name));
  name_.clear();
  // On disk before `current` names it: no power cut leaves a link to nothing.
  if (::fsync(gens) != 0) return fail_write(errno, "{}: cannot sync", quote(jail_->path + "/gen"));
  return {};
}

Result<void> switch_current(const JailDir& jail, unsigned long number) {
  const std::string target = "gen/" + generation::file_name(number);
  ::unlinkat(jail.dir.get(), ".current.new", 0);
  if (::symlinkat(target.c_str(), jail.dir.get(), ".current.new") == 0 &&
      ::renameat(jail.dir.get(), ".current.new", jail.dir.get(), "current") == 0 &&
      // On disk before anything that an older `current` may name is removed.
      ::fsync(jail.dir.get()) == 0)
    return {};
  const int error = errno;
  ::unlinkat(jail.dir.get(), ".current.new", 0);
  return fail_write(error, "{}: cannot switch to {}", quote(jail.path + "/current"), target);
}

Roots process_roots() {
  Roots roots;
  const std::unique_ptr<DIR, int (*)(DIR*)> proc(::opendir("/proc"), &::closedir);
  if (!proc) return roots;
  while (const dirent* entry = ::readdir(proc.get())) {
    pid_t pid = 0;
    const std::string_view name = entry->d_name;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ptr != name.data() + name.size())
      continue;
    const std::string link = std::string(name) + "/root";
    struct stat status {};
    if (::fstatat(::dirfd(proc.get()), link.c_str(), &status, 0) == 0)
      roots[{status.st_dev, status.st_ino}].push_back(pid);
  }
  return roots;
}

std::vector<pid_t> processes_in(const JailDir& jail, unsigned long number, const Roots& roots) {
  const std::string name = generation::file_name(number);
  const UniqueFd dir(
      ::openat(jail.generations.get(), name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  return dir ? processes_in(dir.get(), roots) : std::vector<pid_t>();
}

std::vector<pid_t> processes_in(int generation, const Roots& roots) {
  struct stat status {};
  if (::fstatat(generation, generation::tree, &status, AT_SYMLINK_NOFOLLOW) != 0) return {};
  const auto found = roots.find({status.st_dev, status.st_ino});
  return found == roots.end() ? std::vector<pid_t>() : found->second;
}

Result<Spare> spare_generations(const JailDir& jail, unsigned long current, std::size_t keep) {
  Spare spare;
  JAIL_TRY(numbers, generation_numbers(jail));
  const auto before =
      static_cast<std::size_t>(std::lower_bound(numbers.begin(), numbers.end(), current) - numbers.begin());
  if (before <= keep) return spare;
  // Claimed before the look at the processes: jaild holds what it is about to launch.
  for (std::size_t i = 0; i < before - keep; ++i) {
    UniqueFd claim(::openat(jail.generations.get(), generation::file_name(numbers[i]).c_str(),
                            O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!claim)
      return fail_errno(Exit::io, errno, "{}: cannot open generation {}", quote(jail.path), numbers[i]);
    if (::flock(claim.get(), LOCK_EX | LOCK_NB) == 0)
      spare.doomed.push_back({numbers[i], std::move(claim)});
    else
      spare.used.push_back({numbers[i], {}});
  }
  const Roots roots = process_roots();
  const auto lived_in = [&](const Spare::Doomed& doomed) {
    std::vector<pid_t> processes = processes_in(doomed.claim.get(), roots);
    if (processes.empty()) return false;
    spare.used.push_back({doomed.number, std::move(processes)});
    return true;
  };
  std::erase_if(spare.doomed, lived_in);
  for (Spare::Used& used : spare.used)
    if (used.processes.empty()) used.processes = processes_in(jail, used.number, roots);
  std::sort(spare.used.begin(), spare.used.end(),
            [](const auto& a, const auto& b) { return a.number < b.number; });
  return spare;
}

Result<void> remove_generation(const JailDir& jail, const Spare::Doomed& doomed, const UnlinkWatch& watch) {
  const std::string name = generation::file_name(doomed.number);
  const std::string old = ".old-" + name;
  const int gens = jail.generations.get();
  if (::renameat(gens, name.c_str(), gens, old.c_str()) != 0)
    return fail_write(errno, "{}: cannot remove", quote(jail.path + "/gen/" + name));
  wipe_generations(gens, old);
  return remove_tree(gens, old, jail.path + "/gen/" + old, &watch);
}

}  // namespace jail::tree
