// Fail closed: when any call of a set-up fails, the daemon has not run.
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <map>
#include <random>
#include <set>

#include "catch.h"
#include "sandbox_tracer.h"

using namespace jail;
using namespace jail::test;
namespace fs = std::filesystem;

namespace {

constexpr const char* task_names[] = {"launcher", "init", "daemon-to-be"};

/// Of the calls of one name: the first, the last, and some in between.
std::vector<int> sample(const std::vector<std::string>& steps, std::mt19937& random) {
  constexpr std::size_t of_a_name = 24;
  std::map<std::string, std::vector<int>> by_name;
  for (std::size_t i = 0; i < steps.size(); ++i) by_name[steps[i]].push_back(static_cast<int>(i) + 1);
  std::vector<int> chosen;
  for (auto& [name, places] : by_name) {
    if (places.size() > of_a_name) {
      std::shuffle(places.begin() + 1, places.end() - 1, random);
      places.erase(places.begin() + of_a_name - 1, places.end() - 1);
    }
    chosen.insert(chosen.end(), places.begin(), places.end());
  }
  return chosen;
}

}  // namespace

TEST_CASE("a call of set-up that fails means that the daemon has not run", "[sandbox][closed]") {
  House house;
  house.spec.network = LaunchSpec::Network::private_;
  house.spec.credentials.capabilities = 1U << 10U;
  house.spec.connect_ports = {{Port::Protocol::tcp, 53}};
  house.spec.restrict_ports = true;
  house.ask({"touch:/data/ran"});
  REQUIRE(house.prepare());
  const fs::path mark = house.top / "volume/ran";
  std::mt19937 random(20);  // fixed: a failure can be repeated
  const auto begin = std::chrono::steady_clock::now();
  std::string told;
  for (const Task task : {Task::launcher, Task::init, Task::daemon}) {
    const char* const task_name = task_names[static_cast<int>(task)];
    const Traced whole = run_traced(house, {task, 0});
    INFO(task_name);
    REQUIRE(whole.status == 0);
    REQUIRE(fs::remove(mark));
    REQUIRE(whole.steps.size() >= (task == Task::launcher ? 3U : 100U));
    const std::vector<int> chosen = sample(whole.steps, random);
    for (const int nth : chosen) {
      INFO(whole.steps[static_cast<std::size_t>(nth) - 1] << ", step " << nth);
      const Traced traced = run_traced(house, {task, nth});
      CHECK(traced.struck);
      CHECK(traced.steps.back() == whole.steps[static_cast<std::size_t>(nth) - 1]);
      CHECK(traced.status != 0);
      CHECK_FALSE(fs::remove(mark));
    }
    const std::set<std::string> kinds(whole.steps.begin(), whole.steps.end());
    told += fmt::format("{}: {} of {} calls, all of {} kinds; ", task_name, chosen.size(), whole.steps.size(),
                        kinds.size());
  }
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
  WARN(fmt::format("made to fail, {}{:.1f} s", told, time.count()));
}

TEST_CASE("a daemon-to-be that fails before its init is there is heard, too", "[sandbox][closed]") {
  House house;
  house.ask({"touch:/data/ran"});
  house.spec.cwd = "/nowhere";
  REQUIRE(house.prepare());
  const Traced whole = run_traced(house, {Task::init, 0});
  const auto exec = std::find(whole.steps.begin(), whole.steps.end(), "execveat");
  REQUIRE(exec != whole.steps.end());
  const int nth = static_cast<int>(exec - whole.steps.begin()) + 1;
  const Traced traced = run_traced(house, {Task::init, nth, Fault::Kind::late});
  CHECK(traced.struck);
  REQUIRE(WIFEXITED(traced.status));
  CHECK(WEXITSTATUS(traced.status) == ENOENT);
  CHECK_FALSE(fs::exists(house.top / "volume/ran"));
}
