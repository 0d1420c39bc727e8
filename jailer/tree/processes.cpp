#include "jailer/tree/processes.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <tuple>

#include "jailer/tree/generations.h"
#include "jailer/tree/remove_tree.h"
#include "jailer/tree/state.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/spec/generation.h"

namespace jail {
namespace {

using namespace jail::tree;

constexpr std::size_t max_text = std::size_t{64} << 10U;
constexpr std::size_t max_command = 4096;

/// A file or a namespace, by its device and inode.
using Id = std::pair<dev_t, ino_t>;

/// A generation, and the jail that it is of.
struct Home {
  std::string jail;
  unsigned long generation = 0;
  unsigned long current = 0;
};

/// A process that is held by its directory in /proc: another one that gets its number is not taken for it.
struct Seen {
  pid_t pid = 0;
  UniqueFd dir;
  Id mounts;
  std::optional<Home> home;
};

std::optional<Id> id_of(int dir, const char* name) {
  struct stat status {};
  if (::fstatat(dir, name, &status, 0) != 0) return std::nullopt;
  return Id{status.st_dev, status.st_ino};
}

/// Every generation of `name`, by its tree.
Result<void> add_homes(const Instance& instance, const std::string& name, std::map<Id, Home>& homes) {
  const std::string path = instance.jail(name) + "/gen";
  const UniqueFd gens(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!gens && errno == ENOENT)
    return with_hint(fail(Exit::no_input, "{}: this jail has not been built", name),
                     fmt::format("run: jail build {}", name));
  if (!gens) return fail_errno(Exit::io, errno, "{}: cannot open", quote(path));
  JAIL_TRY(numbers, numbers_in(gens.get(), path));
  const auto current = generation::open_current(instance, name);
  for (const unsigned long number : numbers) {
    const auto opened = generation::open_number(instance, name, number);
    if (!opened) continue;  // removed meanwhile
    if (const auto id = id_of(opened->dir.get(), generation::tree))
      homes[*id] = {name, number, current ? current->number : 0};
  }
  return {};
}

std::vector<Seen> look_over_proc(const std::map<Id, Home>& homes) {
  std::vector<Seen> all;
  const std::unique_ptr<DIR, int (*)(DIR*)> proc(::opendir("/proc"), &::closedir);
  if (!proc) return all;
  while (const dirent* entry = ::readdir(proc.get())) {
    Seen seen;
    const std::string_view name = entry->d_name;
    const char* end = name.data() + name.size();
    if (std::from_chars(name.data(), end, seen.pid).ptr != end) continue;
    seen.dir.reset(::openat(::dirfd(proc.get()), entry->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC));
    const auto mounts = id_of(seen.dir.get(), "ns/mnt");
    const auto root = id_of(seen.dir.get(), "root");
    if (!mounts || !root) continue;  // it has ended, or is a thread of the kernel
    seen.mounts = *mounts;
    if (const auto found = homes.find(*root); found != homes.end()) seen.home = found->second;
    all.push_back(std::move(seen));
  }
  return all;
}

/// A daemon that has gone on to chroot(2) itself is known by the mount namespace of those that have not. (A
/// namespace that is ours or the machine's is no jail's: somebody has entered a tree by hand.)
void find_by_namespace(std::vector<Seen>& all) {
  std::set<Id> foreign;
  for (const char* name : {"/proc/self/ns/mnt", "/proc/1/ns/mnt"})
    if (const auto id = id_of(AT_FDCWD, name)) foreign.insert(*id);
  std::map<Id, Home> by_namespace;
  for (const Seen& seen : all)
    if (seen.home && !foreign.contains(seen.mounts)) by_namespace.emplace(seen.mounts, *seen.home);
  for (Seen& seen : all)
    if (const auto found = by_namespace.find(seen.mounts); !seen.home && found != by_namespace.end())
      seen.home = found->second;
}

/// Of /proc/PID/stat: what stands behind the name, which may hold anything.
std::optional<std::uint64_t> start_ticks(std::string_view stat) {
  constexpr int start_time = 22;
  constexpr int behind_name = 3;
  const std::size_t at = stat.rfind(')');
  if (at == std::string_view::npos) return std::nullopt;
  stat.remove_prefix(std::min(at + 2, stat.size()));
  for (int field = behind_name; field < start_time; ++field) {
    const std::size_t blank = stat.find(' ');
    if (blank == std::string_view::npos) return std::nullopt;
    stat.remove_prefix(blank + 1);
  }
  std::uint64_t ticks = 0;
  if (std::from_chars(stat.data(), stat.data() + stat.size(), ticks).ec != std::errc()) return std::nullopt;
  return ticks;
}

std::int64_t boot_time() {
  const auto text = read_file_at(AT_FDCWD, "/proc/stat", std::size_t{16} << 20U);
  const std::size_t at = text ? text->find("\nbtime ") : std::string::npos;
  std::int64_t seconds = 0;
  if (at != std::string::npos) std::from_chars(text->data() + at + 7, text->data() + text->size(), seconds);
  return seconds;
}

std::string command_of(int dir) {
  const UniqueFd fd(::openat(dir, "cmdline", O_RDONLY | O_CLOEXEC));
  std::string text(max_command, '\0');
  const ssize_t got = fd ? ::read(fd.get(), text.data(), text.size()) : -1;
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  while (!text.empty() && text.back() == '\0') text.pop_back();
  std::replace(text.begin(), text.end(), '\0', ' ');
  if (!text.empty()) return text;
  auto name = read_file_at(dir, "comm", max_text);
  if (!name) return {};
  while (name->ends_with('\n')) name->pop_back();
  return "[" + *name + "]";
}

std::optional<JailProcess> describe(const Seen& seen, std::int64_t booted) {
  JailProcess process;
  std::tie(process.jail, process.generation, process.current) =
      std::tie(seen.home->jail, seen.home->generation, seen.home->current);
  process.pid = seen.pid;
  // The owner of the directory would be root for those that are not dumpable.
  const auto status = read_file_at(seen.dir.get(), "status", max_text);
  const auto stat = read_file_at(seen.dir.get(), "stat", max_text);
  const std::size_t uid = status ? status->find("\nUid:\t") : std::string::npos;
  const auto ticks = stat ? start_ticks(*stat) : std::nullopt;
  if (uid == std::string::npos || !ticks) return std::nullopt;
  const std::size_t effective = status->find('\t', uid + 6);
  if (effective != std::string::npos)
    std::from_chars(status->data() + effective + 1, status->data() + status->size(), process.uid);
  process.since = booted + static_cast<std::int64_t>(*ticks) / ::sysconf(_SC_CLK_TCK);
  process.command = command_of(seen.dir.get());
  return process;
}

}  // namespace

Result<std::vector<JailProcess>> processes_of(const Instance& instance,
                                              const std::vector<std::string>& names) {
  JAIL_CHECK(demand_root("see the processes of jails"));
  std::map<Id, Home> homes;
  for (const std::string& name : names) JAIL_CHECK(add_homes(instance, name, homes));
  std::vector<Seen> all = look_over_proc(homes);
  find_by_namespace(all);
  const std::int64_t booted = boot_time();
  std::vector<JailProcess> found;
  for (const Seen& seen : all) {
    if (!seen.home) continue;
    if (auto process = describe(seen, booted)) found.push_back(std::move(*process));
  }
  std::sort(found.begin(), found.end(), [](const JailProcess& a, const JailProcess& b) {
    return std::tie(a.jail, a.generation, a.pid) < std::tie(b.jail, b.generation, b.pid);
  });
  return found;
}

Result<std::vector<std::string>> jails_there(const Instance& instance) {
  const UniqueFd jails(::open(instance.jails().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!jails && errno == ENOENT) return std::vector<std::string>();
  if (!jails && errno == EACCES) return tl::unexpected(demand_root("list the jails").error());
  if (!jails) return fail_errno(Exit::io, errno, "{}: cannot open", quote(instance.jails()));
  JAIL_TRY(names, names_in(jails.get(), instance.jails()));
  std::erase_if(names, [](const std::string& name) { return !valid_name(name); });
  return std::move(names);
}

}  // namespace jail
