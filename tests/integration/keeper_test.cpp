// The keeper with a fake jaild (keeper_fake.h).
#include <dirent.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "catch.h"
#include "keeper_fake.h"
#include "one_process.h"

using jail::test::KeeperProcess;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

std::string status_field(pid_t pid, const std::string& field) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(field + ":")) return line.substr(line.find_first_not_of(" \t", field.size() + 1));
  return "";
}

bool alive(pid_t pid) {
  const std::string state = status_field(pid, "State");
  return !state.empty() && state[0] != 'Z';
}

std::set<pid_t> children(pid_t pid) {
  std::ifstream list(fmt::format("/proc/{}/task/{}/children", pid, pid));
  std::set<pid_t> all;
  for (pid_t child = 0; list >> child;) all.insert(child);
  return all;
}

std::size_t zombies(pid_t parent) {
  std::size_t count = 0;
  for (const pid_t child : children(parent)) count += alive(child) ? 0 : 1;
  return count;
}

std::size_t open_files(pid_t pid) {
  DIR* dir = ::opendir(fmt::format("/proc/{}/fd", pid).c_str());
  REQUIRE(dir != nullptr);
  std::size_t count = 0;
  while (::readdir(dir) != nullptr) ++count;
  ::closedir(dir);
  return count - 2;
}

void kill_jaild(KeeperProcess& keeper) {
  signal_one(keeper.jaild, SIGKILL);
  keeper.hear("up");
}

std::string kept(int count) {
  std::string all;
  for (int i = 0; i < count; ++i) all += fmt::format("{}n{:05}=n{:05}", i == 0 ? "" : " ", i, i);
  return all;
}

}  // namespace

TEST_CASE("what jaild stores survives a hundred SIGKILLs, in its order") {
  KeeperProcess keeper;
  CHECK(keeper.held.empty());
  for (const char* name : {"state", "named/log", "named/notify", "gone", "control"})
    keeper.tell(fmt::format("store {}", name));
  keeper.tell("drop gone");
  keeper.ask("sync");
  std::set<pid_t> pids{keeper.jaild};
  for (int i = 0; i < 100; ++i) {
    kill_jaild(keeper);
    REQUIRE(keeper.held == "state=state named/log=named/log named/notify=named/notify control=control");
    pids.insert(keeper.jaild);
  }
  CHECK(pids.size() == 101);
  CHECK(zombies(keeper.pid) == 0);
}

TEST_CASE("what was stored in the last moment is not lost") {
  KeeperProcess keeper;
  keeper.tell("store first");
  keeper.tell("abort");  // SIGKILL, right behind it
  keeper.hear("up");
  CHECK(keeper.held == "first=first");
}

TEST_CASE("a full table comes back whole, and neither side waits for the other") {
  KeeperProcess keeper({"prlimit", "--nofile=8192:8192"});
  keeper.tell("many 4100");  // four more than it holds
  keeper.ask("sync");
  const auto begin = Clock::now();
  kill_jaild(keeper);
  CHECK(keeper.held == kept(4096));
  CHECK(Clock::now() - begin < 2s);
  CHECK(open_files(keeper.pid) < 4096 + 10);
  kill_jaild(keeper);
  CHECK(keeper.held == kept(4096));
}

TEST_CASE("the end of an orphan is told once") {
  KeeperProcess keeper;
  const std::string service = keeper.ask("service", "42");
  kill_jaild(keeper);
  CHECK(children(keeper.pid).contains(std::atoi(service.c_str())));
  SECTION("while a jaild lives") {
    signal_one(std::atoi(service.c_str()), SIGALRM);
    CHECK(keeper.hear("reaped") == service + " " + std::to_string(42 << 8));
  }
  SECTION("killed by a signal") {
    signal_one(std::atoi(service.c_str()), SIGKILL);
    CHECK(keeper.hear("reaped") == service + " 9");
  }
  SECTION("when jaild is stopped, and killed before it reads") {
    signal_one(keeper.jaild, SIGSTOP);
    signal_one(std::atoi(service.c_str()), SIGALRM);
    while (alive(std::atoi(service.c_str()))) ::usleep(1000);
    ::usleep(50000);  // the keeper has sent it
    kill_jaild(keeper);
    CHECK(keeper.hear("reaped") == service + " " + std::to_string(42 << 8));
  }
  kill_jaild(keeper);
  CHECK(keeper.silent("reaped", 100ms));
  CHECK(zombies(keeper.pid) == 0);
}

TEST_CASE("ends that come while no jaild lives are told to the next one") {
  KeeperProcess keeper({}, {"fake-jaild", "slow"});
  std::set<std::string> services;
  for (int i = 0; i < 20; ++i) services.insert(keeper.ask("service", std::to_string(i)));
  signal_one(keeper.jaild, SIGKILL);
  ::usleep(50000);
  for (const std::string& service : services) signal_one(std::atoi(service.c_str()), SIGALRM);
  keeper.hear("up");
  for (int i = 0; i < 20; ++i) {
    const std::string end = keeper.hear("reaped");
    CHECK(services.erase(end.substr(0, end.find(' '))) == 1);
  }
  CHECK(services.empty());
  CHECK(keeper.silent("reaped", 50ms));
}

TEST_CASE("ten thousand orphans leave no zombie") {
  KeeperProcess keeper;
  keeper.ask("orphans", "10000");
  for (int i = 0; i < 100 && zombies(keeper.pid) > 0; ++i) ::usleep(20000);
  CHECK(zombies(keeper.pid) == 0);
  // The fake reads slower than they die; what it was not told of is told by number on stderr.
  keeper.ask("sync");
}

TEST_CASE("an orderly end is the keeper's end too") {
  const int status = GENERATE(0, 1, 64, 71, 75, 77, 78);
  KeeperProcess keeper;
  keeper.tell(fmt::format("exit {}", status));
  CHECK(keeper.wait() == status);
}

TEST_CASE("an internal error and any signal bring jaild back") {
  KeeperProcess keeper;
  keeper.tell("exit 70");
  keeper.hear("up");
  keeper.tell("abort 22");  // SIGSYS
  keeper.hear("up");
  keeper.tell("exit 3");
  CHECK(keeper.wait() == 3);
}

TEST_CASE("a jaild that keeps dying by itself is started ever more slowly") {
  KeeperProcess keeper;
  keeper.tell("exit 70");
  keeper.hear("up");
  std::vector<std::int64_t> delays;
  for (int i = 0; i < 3; ++i) {
    const auto begin = Clock::now();
    keeper.tell("exit 70");
    keeper.hear("up");
    delays.push_back(std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin).count());
  }
  CHECK((delays[0] >= 95 && delays[0] < 190));
  CHECK((delays[1] >= 195 && delays[1] < 390));
  CHECK((delays[2] >= 395 && delays[2] < 790));
}

TEST_CASE("signals to the keeper go to jaild") {
  KeeperProcess keeper;
  keeper.ask("sync");
  signal_one(keeper.pid, SIGHUP);
  CHECK(keeper.hear("signal") == std::to_string(SIGHUP));
  signal_one(keeper.pid, SIGINT);
  CHECK(keeper.hear("signal") == std::to_string(SIGINT));
  for (const int harmless : {SIGPIPE, SIGUSR1, SIGQUIT, SIGALRM}) signal_one(keeper.pid, harmless);
  signal_one(keeper.pid, SIGPWR);
  CHECK(keeper.hear("signal") == std::to_string(SIGTERM));
  CHECK(keeper.wait() == 7);
}

TEST_CASE("a signal that comes before jaild listens waits for it") {
  KeeperProcess keeper({}, {"fake-jaild", "slow"});
  signal_one(keeper.jaild, SIGKILL);
  ::usleep(100000);  // the next one exists, and sleeps before its signalfd
  signal_one(keeper.pid, SIGTERM);
  CHECK(keeper.hear("signal") == std::to_string(SIGTERM));
  CHECK(keeper.wait() == 7);
}

TEST_CASE("SIGTERM in a backoff starts jaild at once, for only it can end its services") {
  KeeperProcess keeper;
  for (int i = 0; i < 4; ++i) {
    keeper.tell("exit 70");
    keeper.hear("up");
  }
  const auto begin = Clock::now();
  keeper.tell("exit 70");  // 800 ms
  ::usleep(50000);
  signal_one(keeper.pid, SIGTERM);
  CHECK(keeper.hear("signal") == std::to_string(SIGTERM));
  CHECK(keeper.wait() == 7);
  CHECK(Clock::now() - begin < 500ms);
}

TEST_CASE("a jaild that is killed before it obeys SIGTERM is given it again") {
  KeeperProcess keeper;
  keeper.tell("ignore");
  keeper.ask("sync");
  signal_one(keeper.pid, SIGTERM);
  keeper.hear("signal");
  kill_jaild(keeper);
  CHECK(keeper.wait() == 7);
}

TEST_CASE("a jaild that crashes at once, with SIGTERM on top, ends the keeper") {
  KeeperProcess keeper({}, {"crash"});
  ::usleep(100000);
  signal_one(keeper.pid, SIGTERM);
  CHECK(keeper.wait() == 70);
}

TEST_CASE("a jaild that cannot be started is an error of the host") {
  const std::string command = jail::test::keeper_program() + " /nonexistent/jaild 2>/dev/null";
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    ::_exit(127);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 71);
}

TEST_CASE("SIGKILL of the keeper: jaild makes a new one, and services keep their parent") {
  KeeperProcess keeper;
  keeper.tell("store state");
  keeper.tell("store control");
  const pid_t service = std::atoi(keeper.ask("service", "5").c_str());
  const pid_t old_jaild = keeper.jaild;
  signal_one(keeper.pid, SIGKILL);
  const std::string line = keeper.hear("replaced");
  CHECK(keeper.wait() == 128 + SIGKILL);
  std::istringstream words(line);
  words >> keeper.jaild >> keeper.pid;
  CHECK(keeper.pid == old_jaild);  // the old jaild is the keeper now
  CHECK(keeper.jaild != old_jaild);
  CHECK(status_field(keeper.pid, "Name") == "jail-keeper");
  CHECK(alive(service));
  CHECK(children(keeper.pid).contains(service));

  SECTION("the new keeper tells ends") {
    signal_one(service, SIGALRM);
    CHECK(keeper.hear("reaped") == fmt::format("{} {}", service, 5 << 8));
  }
  SECTION("it holds what was held, and brings jaild back") {
    kill_jaild(keeper);
    CHECK(keeper.held == "state=state control=control");
    CHECK(children(keeper.pid).contains(service));
    CHECK(open_files(keeper.pid) < 16);  // nothing of the old jaild's stayed
  }
  SECTION("it passes signals on, and ends with jaild") {
    signal_one(keeper.pid, SIGHUP);
    CHECK(keeper.hear("signal") == std::to_string(SIGHUP));
    signal_one(keeper.pid, SIGTERM);
    CHECK(keeper.hear("signal") == std::to_string(SIGTERM));
    for (int i = 0; i < 500 && alive(keeper.pid); ++i) ::usleep(10000);
    CHECK_FALSE(alive(keeper.pid));
  }
  SECTION("and it can be killed and replaced in its turn") {
    signal_one(keeper.pid, SIGKILL);
    std::istringstream again(keeper.hear("replaced"));
    again >> keeper.jaild >> keeper.pid;
    kill_jaild(keeper);
    CHECK(keeper.held == "state=state control=control");
  }
  signal_one(service, SIGKILL);
  signal_one(keeper.pid, SIGKILL);
  signal_one(keeper.jaild, SIGKILL);
  keeper.pid = -1;
}

TEST_CASE("without a jail-keeper to become, jaild stays what it is") {
  KeeperProcess keeper;
  keeper.tell("program /nonexistent/jail-keeper");
  const pid_t jaild = keeper.jaild;
  keeper.ask("sync");
  signal_one(keeper.pid, SIGKILL);
  CHECK_THAT(keeper.hear("failed"), Catch::Matchers::Contains("/nonexistent/jail-keeper"));
  CHECK(keeper.wait() == 128 + SIGKILL);
  keeper.ask("sync");
  CHECK(alive(jaild));
  CHECK(children(jaild).empty());
  signal_one(jaild, SIGKILL);
}

TEST_CASE("the keeper as PID 1 reaps, passes signals on, and ends its namespace with jaild") {
  if (::geteuid() != 0) {
    WARN("skipped: a pid namespace needs root");
    return;
  }
  KeeperProcess keeper({"unshare", "--pid", "--fork", "--mount-proc", "--kill-child"});
  CHECK(keeper.jaild == 2);
  keeper.ask("orphans", "500");
  const std::set<pid_t> init = children(keeper.pid);
  REQUIRE(init.size() == 1);
  for (int i = 0; i < 100 && zombies(*init.begin()) > 0; ++i) ::usleep(20000);
  CHECK(zombies(*init.begin()) == 0);
  signal_one(*init.begin(), SIGTERM);
  CHECK(keeper.hear("signal") == std::to_string(SIGTERM));
  CHECK(keeper.wait() == 7);
}

TEST_CASE("the keeper is small") {
  KeeperProcess keeper;
  CHECK(open_files(keeper.pid) < 10);
#if !defined(__SANITIZE_ADDRESS__)                                      // which is not
  CHECK(std::atoi(status_field(keeper.pid, "RssAnon").c_str()) < 256);  // KiB
  CHECK(std::atoi(status_field(keeper.pid, "VmRSS").c_str()) < 1500);
#endif
}
