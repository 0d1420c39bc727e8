#include "supervisor/loop/cgroups.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <sstream>
#include <vector>

#include "supervisor/base/io.h"

namespace jail::loop {
namespace {

constexpr std::size_t small_file = 1U << 20U;

std::string leaf(const std::string& name) {
  return name + ".jail";
}  // no clash with the kernel's own files

std::optional<std::string> read_small(int dir, const char* file) {
  auto text = read_file_at(dir, file, small_file);
  return text ? std::optional(std::move(*text)) : std::nullopt;
}

bool write_small(int dir, const char* file, std::string_view text) {
  const UniqueFd fd(::openat(dir, file, O_WRONLY | O_CLOEXEC));
  return fd && ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

std::optional<std::uint64_t> field(const std::string& text, std::string_view key) {
  std::istringstream lines(text);
  std::string name;
  std::uint64_t value = 0;
  while (lines >> name >> value)
    if (name == key) return value;
  return std::nullopt;
}

}  // namespace

Cgroups Cgroups::find(const std::string& id) {
  Cgroups cgroups;
  const auto mounts = read_small(AT_FDCWD, "/proc/self/mountinfo");
  const auto own = read_small(AT_FDCWD, "/proc/self/cgroup");
  if (!mounts || !own) return cgroups;
  auto place = find_cgroup_place(*mounts, *own);
  if (!place) return cgroups;
  // The supervisor may itself have moved below its place, see limit().
  constexpr std::string_view moved = "/jaild";
  if (place->own.ends_with(moved)) place->own.resize(place->own.size() - moved.size());
  cgroups.own_.reset(::open(place->own.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  cgroups.base_name_ = "jail-" + id;
  if (!cgroups.own_) return cgroups;
  if (::mkdirat(cgroups.own_.get(), cgroups.base_name_.c_str(), 0755) != 0 && errno != EEXIST) return cgroups;
  cgroups.base_.reset(::openat(cgroups.own_.get(), cgroups.base_name_.c_str(),
                               O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  return cgroups;
}

Result<Cgroup> Cgroups::open(const std::string& name) const {
  Cgroup cgroup;
  if (!base_) return cgroup;
  const std::string dir = leaf(name);
  if (::mkdirat(base_.get(), dir.c_str(), 0755) != 0 && errno != EEXIST)
    return fail_errno(Exit::host, errno, "{}: cannot make its cgroup", name);
  cgroup.dir_.reset(::openat(base_.get(), dir.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat status {};
  if (!cgroup.dir_ || ::fstat(cgroup.dir_.get(), &status) != 0)
    return fail_errno(Exit::host, errno, "{}: cannot open its cgroup", name);
  cgroup.id_ = status.st_ino;
  return cgroup;
}

Result<Cgroup> Cgroups::renew(const std::string& name) const {
  remove(name);
  return open(name);
}

std::string Cgroups::limit(const Cgroup& cgroup, const Limits& limits) const {
  struct Row {
    std::uint64_t value;
    const char* controller;
    const char* file;
    const char* word;
  };
  const Row rows[] = {{limits.memory, "+memory", "memory.max", "memory"},
                      {limits.processes, "+pids", "pids.max", "processes"}};
  std::string missing;
  for (const Row& row : rows) {
    if (row.value == 0 && !cgroup.valid()) continue;
    bool done = false;
    if (cgroup.valid()) {
      const std::string text = row.value == 0 ? "max" : std::to_string(row.value);
      done = write_small(cgroup.fd(), row.file, text);
      if (!done && row.value != 0) {
        // Refused where we ourselves sit in our cgroup (and it is not the root): processes may not be beside
        // children with controllers. A supervisor that owns its cgroup alone moves into a leaf of it.
        if (!write_small(own_.get(), "cgroup.subtree_control", row.controller) && errno == EBUSY &&
            (::mkdirat(own_.get(), "jaild", 0755) == 0 || errno == EEXIST)) {
          std::istringstream pids(read_small(own_.get(), "cgroup.procs").value_or(""));
          const UniqueFd inner(::openat(own_.get(), "jaild", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
          for (std::string pid; pids >> pid;)
            if (pid == std::to_string(::getpid()) || pid == std::to_string(::getppid()))
              (void)write_small(inner.get(), "cgroup.procs", pid);
          (void)write_small(own_.get(), "cgroup.subtree_control", row.controller);
        }
        (void)write_small(base_.get(), "cgroup.subtree_control", row.controller);
        done = write_small(cgroup.fd(), row.file, text);
      }
      if (done && row.file == std::string_view("memory.max"))
        (void)write_small(cgroup.fd(), "memory.oom.group", row.value == 0 ? "0" : "1");
    }
    if (done || row.value == 0) continue;
    missing += fmt::format("{}limits.{}", missing.empty() ? "" : ", ", row.word);
  }
  return missing.empty() ? missing : missing + ": no such cgroup v2 controller here";
}

void Cgroups::remove(const std::string& name) const {
  if (base_) ::unlinkat(base_.get(), leaf(name).c_str(), AT_REMOVEDIR);
}

void Cgroups::remove_base() const {
  if (base_) ::unlinkat(own_.get(), base_name_.c_str(), AT_REMOVEDIR);
}

bool Cgroup::populated() const {
  if (!dir_) return false;
  const auto events = read_small(dir_.get(), "cgroup.events");
  return events && field(*events, "populated").value_or(0) != 0;
}

void Cgroup::kill_all() const {
  if (dir_) (void)write_small(dir_.get(), "cgroup.kill", "1");
}

std::uint64_t Cgroup::oom_kills() const {
  if (!dir_) return 0;
  const auto events = read_small(dir_.get(), "memory.events");
  return events ? field(*events, "oom_kill").value_or(0) : 0;
}

}  // namespace jail::loop
