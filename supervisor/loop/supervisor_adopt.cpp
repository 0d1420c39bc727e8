// What an earlier jaild left: descriptors with the keeper, the state, and perhaps a process that nobody knows
// of.
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <memory>
#include <sstream>

#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/loop/supervisor.h"

namespace jail::loop {
namespace {

constexpr int stray_time = 2000;  ///< milliseconds for strays to die after SIGKILL

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

bool same_file(const std::string& path, const struct stat& other) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && status.st_ino == other.st_ino && status.st_dev == other.st_dev;
}

}  // namespace

void Supervisor::adopt(Held held) {
  std::map<std::string, ServiceState> states;
  auto text = state_->load();
  if (!text) {
    journal_.log().warn("{}; going by what the keeper holds", text.error().message);
  } else if (*text) {
    auto read = states_from_json(**text);
    if (read) {
      states = std::move(*read);
      first_ = false;
    } else {
      journal_.log().warn("{}; going by what the keeper holds", read.error().message);
    }
  }
  std::map<std::string, Inherited> inherited;
  for (auto& [name, fd] : held) {
    const std::size_t slash = name.find('/');
    const std::string service = name.substr(0, slash);
    if (slash == std::string::npos || !valid_name(service)) {
      journal_.log().warn("the keeper holds {}, which nobody knows", quote(name));
      release(name);
      continue;
    }
    inherited[service][name.substr(slash + 1)] = std::move(fd);
  }
  for (const auto& [name, state] : states) inherited[name];

  std::set<pid_t> known;
  for (const auto& [name, fds] : inherited)
    if (fds.contains("init") && states.contains(name)) known.insert(states.at(name).init_pid);
  // Where the state says nothing of an init that is held, its pid is not known: nothing is taken for a stray
  // then.
  bool all_known = true;
  for (const auto& [name, fds] : inherited)
    all_known =
        all_known && (!fds.contains("init") || (states.contains(name) && states.at(name).init_pid != 0));
  if (!first_ && all_known) end_strays(known);

  for (auto& [name, fds] : inherited) {
    const auto state = states.find(name);
    Unit& adopted = unit(name);
    adopted.adopt(state == states.end() ? std::nullopt : std::optional(state->second), std::move(fds));
    if (adopted.channel()) house_.relay(name, *adopted.channel());
    if (adopted.init_pid() != 0)
      journal_.log().info("{}: taken over, {}, pid {}", name, service::state_name(adopted.machine().state()),
                          adopted.machine().snapshot().pid);
  }
}

/// An init that was made by a jaild which was killed before it could store the pidfd. It dies with that jaild
/// while it is set up, but a jaild can be held up for any time between the two calls.
void Supervisor::end_strays(const std::set<pid_t>& known) {
  struct stat init {};
  struct stat own {};
  if (::fstat(options_.init_program.get(), &init) != 0 || ::stat("/proc/self/exe", &own) != 0) return;
  const auto text =
      read_file_at(AT_FDCWD, fmt::format("/proc/{}/task/{}/children", ::getppid(), ::getppid()), 1U << 20U);
  if (!text) return;
  std::istringstream words(*text);
  std::vector<UniqueFd> strays;
  for (pid_t pid = 0; words >> pid;) {
    if (pid == ::getpid() || known.contains(pid)) continue;
    UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    const std::string exe = fmt::format("/proc/{}/exe", pid);
    if (!process || own_pid(pid) != 1 || pid_namespace(pid) == pid_namespace(::getpid())) continue;
    if (!same_file(exe, init) && !same_file(exe, own)) continue;
    journal_.log().warn("process {} is a jail that nobody knows: killing it", pid);
    ::syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0);
    strays.push_back(std::move(process));
  }
  // The only wait outside of the loop: before anything is launched, they must be gone.
  for (const UniqueFd& stray : strays) {
    pollfd gone{stray.get(), POLLIN, 0};
    (void)::poll(&gone, 1, stray_time);
  }
}

void Supervisor::start_enabled() {
  const std::unique_ptr<DIR, CloseDir> dir(::opendir(options_.instance.enabled().c_str()));
  std::set<std::string> names;
  while (const dirent* entry = dir ? ::readdir(dir.get()) : nullptr)
    if (valid_name(entry->d_name)) names.insert(entry->d_name);
  for (const std::string& name : names) {
    auto found = find_unit(name);
    if (found)
      (*found)->request(service::Event::Kind::start);
    else
      journal_.log().error("{}: is enabled, but cannot be started: {}", name, found.error().message);
  }
}

}  // namespace jail::loop
