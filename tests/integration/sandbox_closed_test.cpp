// Fail closed: when any call of a set-up fails, the daemon has not run. strace makes the calls fail.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "catch.h"
#include "sandbox_house.h"

using namespace jail;
using namespace jail::test;
namespace fs = std::filesystem;

namespace {

enum class Task : std::uint8_t { launcher, init, daemon, none };

/// The `nth` call of this name that a task makes, from 1: what strace's when= counts.
struct Position {
  Task task = Task::none;
  std::string name;
  int nth = 0;
  auto operator<=>(const Position&) const = default;
};

/// A line of strace's log that tells of a call of set-up.
struct Step {
  Position position;
  bool injected = false;
};

pid_t spawn(std::vector<std::string> command, int standard_input) {
  std::vector<char*> argv;
  for (std::string& argument : command) argv.push_back(argument.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  REQUIRE(::posix_spawn_file_actions_init(&actions) == 0);
  ::posix_spawn_file_actions_adddup2(&actions, standard_input, 0);
  pid_t pid = -1;
  const int error = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  REQUIRE(error == 0);
  return pid;
}

bool traced(pid_t pid) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("TracerPid:")) return line != "TracerPid:\t0";
  return false;
}

/// What one run under strace made of the jail.
struct Traced {
  std::vector<Step> steps;  ///< of the set-up, in the order in which they began
  bool ran = false;         ///< the probe has left its mark
  int status = -1;          ///< of the launcher
};

/// Follows the tasks of a log and knows which of their calls are steps.
class Reader {
 public:
  explicit Reader(pid_t launcher) : tasks_{{launcher, Task::launcher}} {}

  void read(const std::string& line) {
    std::istringstream words(line);
    pid_t pid = -1;
    std::string rest;
    words >> pid >> std::ws;
    std::getline(words, rest);
    const Task task = task_of(pid);
    const bool injected = rest.ends_with("(INJECTED)");
    if (rest.starts_with("<... ")) {  // the end of a call whose beginning has been read
      if (injected && current_.count(pid) == 1 && current_[pid] != none)
        steps_[current_[pid]].injected = true;
      leave_by(task, rest.substr(5, rest.find(' ', 5) - 5), rest);
      return;
    }
    const std::size_t open = rest.find('(');
    if (open == std::string::npos || !std::isalpha(static_cast<unsigned char>(rest.front()))) return;
    const std::string name = rest.substr(0, open);
    const int nth = ++counts_[{task, name}];
    current_[pid] = none;
    if (is_step(task, name)) {
      current_[pid] = steps_.size();
      steps_.push_back({{task, name, nth}, injected});
    }
    leave_by(task, name, rest);
  }

  [[nodiscard]] std::vector<Step> steps() const { return steps_; }

 private:
  static constexpr std::size_t none = static_cast<std::size_t>(-1);

  Task task_of(pid_t pid) {
    const auto known = tasks_.find(pid);
    if (known != tasks_.end()) return known->second;
    const Task task = tasks_.size() == 1 ? Task::init : tasks_.size() == 2 ? Task::daemon : Task::none;
    tasks_[pid] = task;
    return task;
  }

  /// Not a step: close (what it leaves open, close_range closes, which is one), the way out, the C library's
  /// own start of jail-init, and all that comes after the gate has been opened.
  bool is_step(Task task, const std::string& name) {
    if (name == "close" || name == "exit_group" || name == "restart_syscall") return false;
    switch (task) {
      case Task::launcher:
        return !cloned_ && (name == "socketpair" || name == "pidfd_open" || name == "clone3");
      case Task::init: {
        if (!init_executed_) return true;
        if (gate_open_) return false;
        gate_open_ = name == "write";
        return name == "prctl" || name == "seccomp" || name == "write";
      }
      case Task::daemon:
        return !daemon_executed_;
      case Task::none:
        return false;
    }
    return false;
  }

  void leave_by(Task task, const std::string& name, const std::string& text) {
    if (!text.ends_with(" = 0") && name != "clone3") return;
    if (task == Task::launcher && name == "clone3") cloned_ = true;
    if (task == Task::init && name == "execveat") init_executed_ = true;
    if (task == Task::daemon && name == "execve") daemon_executed_ = true;
  }

  std::map<pid_t, Task> tasks_;
  std::map<std::pair<Task, std::string>, int> counts_;
  std::map<pid_t, std::size_t> current_;  ///< the step that a task is in
  std::vector<Step> steps_;
  bool cloned_ = false, init_executed_ = false, gate_open_ = false, daemon_executed_ = false;
};

/// Launches the house's generation with `options` of strace in force from right before the launch.
Traced run_traced(const House& house, const std::vector<std::string>& options) {
  const std::string log = house.top / "strace.log";
  const fs::path mark = house.top / "volume/ran";
  fs::remove(mark);
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  UniqueFd read_end(ends[0]), write_end(ends[1]);
  const pid_t launcher = spawn({program("launcher"), house.top / "gen", program("jail-init")}, ends[0]);
  std::vector<std::string> command = {"strace", "-q", "-q", "-f", "-o", log};
  command.insert(command.end(), options.begin(), options.end());
  command.insert(command.end(), {"-p", std::to_string(launcher)});
  const pid_t strace = spawn(command, ends[0]);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!traced(launcher) && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const bool attached = traced(launcher);
  write_end.reset();
  Traced result;
  ::waitpid(launcher, &result.status, 0);
  ::waitpid(strace, nullptr, 0);
  REQUIRE(attached);
  result.ran = fs::exists(mark);
  Reader reader(launcher);
  std::ifstream lines(log);
  for (std::string line; std::getline(lines, line);) reader.read(line);
  result.steps = reader.steps();
  return result;
}

std::string describe(const Position& position) {
  constexpr const char* names[] = {"launcher", "init", "daemon", "none"};
  return fmt::format("{} {} #{}", names[static_cast<int>(position.task)], position.name, position.nth);
}

/// Of each task's calls of one name: the first, the last, and some in between.
std::vector<Position> sample(const std::vector<Step>& steps) {
  constexpr std::size_t of_a_name = 8;
  std::map<std::pair<Task, std::string>, std::vector<Position>> by_name;
  for (const Step& step : steps) by_name[{step.position.task, step.position.name}].push_back(step.position);
  std::mt19937 random(20);  // fixed: a failure can be repeated
  std::vector<Position> chosen;
  for (auto& [name, positions] : by_name) {
    if (positions.size() > of_a_name) {
      std::shuffle(positions.begin() + 1, positions.end() - 1, random);
      positions.erase(positions.begin() + of_a_name - 1, positions.end() - 1);
    }
    chosen.insert(chosen.end(), positions.begin(), positions.end());
  }
  return chosen;
}

}  // namespace

TEST_CASE("a daemon-to-be that fails before its init is there is heard, too", "[sandbox][closed]") {
  House house;
  house.ask({"touch:/data/ran"});
  house.spec.cwd = "/nowhere";
  REQUIRE(house.prepare());
  const Traced traced = run_traced(house, {"-e", "inject=execveat:delay_enter=100000"});
  CHECK_FALSE(traced.ran);
  REQUIRE(WIFEXITED(traced.status));
  CHECK(WEXITSTATUS(traced.status) == ENOENT);
}

TEST_CASE("a call of set-up that fails means that the daemon has not run", "[sandbox][closed]") {
  House house;
  house.spec.network = LaunchSpec::Network::private_;
  house.spec.credentials.capabilities = 1U << 10U;
  house.ask({"touch:/data/ran"});
  REQUIRE(house.prepare());
  const auto begin = std::chrono::steady_clock::now();
  const Traced untouched = run_traced(house, {});
  REQUIRE(untouched.status == 0);
  REQUIRE(untouched.ran);
  REQUIRE(untouched.steps.size() > 300);

  std::set<Position> failed;
  std::set<std::string> names;
  const std::vector<Position> chosen = sample(untouched.steps);
  for (const Position& position : chosen) {
    const Traced traced =
        run_traced(house, {"-e", fmt::format("inject={}:error=EPERM:when={}", position.name, position.nth)});
    std::string hit;
    for (const Step& step : traced.steps)
      if (step.injected) {
        failed.insert(step.position);
        names.insert(step.position.name);
        hit += describe(step.position) + ", ";
      }
    INFO("wanted " << describe(position) << "; failed: " << hit);
    CHECK_FALSE(traced.ran);
    CHECK(traced.status != 0);
    // The daemon's read at the gate cannot be singled out: jail-init makes one, too, and may be first.
    if (position.name != "read") CHECK_FALSE(hit.empty());
  }
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
  WARN(fmt::format("{} calls in a set-up; {} of them made to fail, of {} kinds, in {} launches and {:.1f} s",
                   untouched.steps.size(), failed.size(), names.size(), chosen.size(), time.count()));
}
