// A launch as the supervisor sees it: what is told, when, and what a failed step leaves behind.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <thread>

#include "catch.h"
#include "one_process.h"
#include "sandbox_house.h"

using namespace jail;
using namespace jail::test;
namespace fs = std::filesystem;

namespace {

/// Reaped, or a zombie that its new parent has not yet seen to: either way nothing of it runs.
bool gone(pid_t pid) {
  if (signal_one(pid, 0) < 0 && errno == ESRCH) return true;
  std::string stat;
  std::getline(std::ifstream(fmt::format("/proc/{}/stat", pid)), stat);
  const std::size_t behind = stat.rfind(") ");
  return behind == std::string::npos || stat.substr(behind + 2, 1) == "Z";
}

bool gone_within(pid_t pid, std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (!gone(pid)) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

/// A step fails, nothing runs, and the step is named.
void fails_at(const House& house, const std::string& step, int error) {
  const Outcome outcome = live(house);
  CHECK(outcome.failed);
  CHECK_FALSE(outcome.running);
  CHECK_FALSE(outcome.exited);
  CHECK(outcome.step == step);
  CHECK(outcome.error == error);
  CHECK(outcome.output.empty());
}

}  // namespace

TEST_CASE("a daemon runs, and its exit status is told", "[sandbox]") {
  House house;
  house.ask({"host", "exit:7"});
  const Outcome outcome = live(house);
  INFO(outcome.step << " " << outcome.error << "\n" << outcome.output);
  CHECK_FALSE(outcome.failed);
  CHECK(outcome.running);
  REQUIRE(outcome.exited);
  CHECK(WIFEXITED(outcome.status));
  CHECK(WEXITSTATUS(outcome.status) == 7);
  CHECK(outcome.says("host jailed"));
}

TEST_CASE("a daemon's signal is told", "[sandbox]") {
  House house;
  house.ask({"die:11"});
  const Outcome outcome = live(house);
  REQUIRE(outcome.exited);
  CHECK(WIFSIGNALED(outcome.status));
  CHECK(WTERMSIG(outcome.status) == SIGSEGV);
}

TEST_CASE("the daemon's pidfd and pid are its own", "[sandbox]") {
  House house;
  house.ask({"wait"});
  auto prepared = house.prepare();
  REQUIRE(prepared);
  auto running = start(*prepared);
  REQUIRE(running);
  auto report = next_report(*running);
  REQUIRE(report);
  REQUIRE(report->kind == sandbox::Report::Kind::running);
  CHECK(report->pid > running->launched.init_pid);
  CHECK(signal_one(report->pid, 0) == 0);
  REQUIRE(::syscall(SYS_pidfd_send_signal, report->daemon.get(), SIGTERM, nullptr, 0) == 0);
  const Outcome outcome = finish(std::move(*running));
  REQUIRE(outcome.exited);
  CHECK(WTERMSIG(outcome.status) == SIGTERM);
}

TEST_CASE("the init's death ends the stream and all of the jail", "[sandbox]") {
  House house;
  house.ask({"wait"});
  auto prepared = house.prepare();
  REQUIRE(prepared);
  auto running = start(*prepared);
  REQUIRE(running);
  auto report = next_report(*running);
  REQUIRE(report);
  const pid_t daemon = report->pid;
  REQUIRE(daemon > 0);
  REQUIRE(::syscall(SYS_pidfd_send_signal, running->launched.init.get(), SIGKILL, nullptr, 0) == 0);
  const Outcome outcome = finish(std::move(*running));
  CHECK_FALSE(outcome.exited);
  CHECK(gone(daemon));
}

TEST_CASE("what a daemon leaves behind ends with it", "[sandbox]") {
  House house;
  house.ask({"orphan", "exit:0"});
  const auto begin = std::chrono::steady_clock::now();
  const Outcome outcome = live(house);  // reads the output to its end: the orphan holds the pipe
  CHECK(outcome.exited);
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
}

TEST_CASE("a service outlives the process that launched it", "[sandbox]") {
  House house;
  house.ask({"wait"});
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t launcher = ::fork();
  REQUIRE(launcher >= 0);
  if (launcher == 0) {
    auto prepared = house.prepare();
    auto running = start(*prepared);
    pid_t pids[2] = {running->launched.init_pid, -1};
    auto report = next_report(*running);
    if (report) pids[1] = report->pid;
    if (::write(ends[1], pids, sizeof pids) < 0) ::_exit(1);
    ::_exit(0);  // no destructors: the house is the parent's
  }
  ::close(ends[1]);  // a launcher that dies is the end of the stream
  pid_t pids[2] = {-1, -1};
  REQUIRE(::read(ends[0], pids, sizeof pids) == sizeof pids);
  ::waitpid(launcher, nullptr, 0);
  CHECK_FALSE(gone_within(pids[0], std::chrono::milliseconds(100)));
  CHECK(signal_one(pids[1], SIGKILL) == 0);
  CHECK(gone_within(pids[0], std::chrono::seconds(1)));
  ::close(ends[0]);
}

namespace {

/// A jail held at some moment of its launch, and the launcher's end of its report channel.
struct Held {
  pid_t init = -1;
  int report = -1;
};

/// What follows set-up; it alone lets the daemon run.
bool is_jail_init(pid_t pid) {
  std::string name;
  std::getline(std::ifstream(fmt::format("/proc/{}/cmdline", pid)), name, '\0');
  return name == "jail-init";
}

/// A copy of another process' descriptor.
UniqueFd copy_of(pid_t pid, int fd) {
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), fd, 0)));
}

/// In a child of its own: launches, and stops the init `delay` microseconds later. Tells of it and waits to
/// be killed.
[[noreturn]] void launch_and_hold(const House& house, int delay, int init_fd, int sink, int told) {
  auto prepared = house.prepare();
  sandbox::LaunchInputs inputs;
  inputs.init_fd = init_fd;
  inputs.stdout_fd = inputs.stderr_fd = sink;
  auto launched = sandbox::launch(*prepared, inputs);
  const auto init = static_cast<id_t>(launched->init.get());
  if (delay > 0) ::usleep(static_cast<useconds_t>(delay));
  siginfo_t info{};
  if (::syscall(SYS_pidfd_send_signal, init, SIGSTOP, nullptr, 0) < 0) ::_exit(1);
  if (::waitid(P_PIDFD, init, &info, WSTOPPED | WEXITED | WNOWAIT) < 0 || info.si_code != CLD_STOPPED)
    ::_exit(1);
  const Held held{launched->init_pid, launched->report.get()};
  if (::write(told, &held, sizeof held) < 0) ::_exit(1);
  for (;;) ::pause();
}

}  // namespace

TEST_CASE("a launcher killed at any moment of a set-up leaves no half-made jail", "[sandbox]") {
  House house;
  house.ask({"wait"});
  const UniqueFd init(::open(program("jail-init").c_str(), O_PATH | O_CLOEXEC));
  const UniqueFd sink(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  REQUIRE(house.prepare());
  int unfinished = 0;
  for (int delay = 0; delay < 2000; delay += 50) {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const pid_t launcher = ::fork();
    REQUIRE(launcher >= 0);
    if (launcher == 0) launch_and_hold(house, delay, init.get(), sink.get(), ends[1]);
    ::close(ends[1]);
    Held held;
    const bool whole = ::read(ends[0], &held, sizeof held) == sizeof held;
    ::close(ends[0]);
    // Somebody listens, as the keeper does for jaild: the jail does not end for want of a reader.
    const UniqueFd listener = whole ? copy_of(launcher, held.report) : UniqueFd();
    signal_one(launcher, SIGKILL);
    ::waitpid(launcher, nullptr, 0);
    REQUIRE(listener.valid());
    const bool in_set_up = !is_jail_init(held.init);
    if (!gone(held.init)) signal_one(held.init, SIGCONT);
    INFO("held after " << delay << " us");
    // Left alone, a set-up is complete in a millisecond: alive now means that nothing has ended it.
    const bool ended = !in_set_up || gone_within(held.init, std::chrono::seconds(2));
    if (!gone(held.init)) signal_one(held.init, SIGKILL);
    REQUIRE(ended);
    unfinished += in_set_up ? 1 : 0;
  }
  CHECK(unfinished >= 5);
}

TEST_CASE("the end of the init is no word of it: the daemon-to-be does not run", "[sandbox]") {
  House house;
  house.ask({"touch:/data/ran", "host"});
  const UniqueFd stand_in(::open(program("probe").c_str(), O_PATH | O_CLOEXEC));
  REQUIRE(stand_in.valid());
  sandbox::LaunchInputs inputs;
  inputs.init_fd = stand_in.get();
  const Outcome outcome = live(house, inputs);
  CHECK(outcome.output.empty());
  CHECK_FALSE(fs::exists(house.top / "volume/ran"));
}

TEST_CASE("sockets are passed from 3, and the environment tells of them", "[sandbox]") {
  House house;
  house.ask({"fds", "environment", "listen-pid"});
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  sandbox::LaunchInputs inputs;
  inputs.sockets = {{ends[0], "one"}, {ends[1], "two"}};
  const Outcome outcome = live(house, inputs);
  INFO(outcome.output);
  CHECK(outcome.says("fds 0 1 2 3 4"));
  CHECK(outcome.says("environment LISTEN_FDS=2"));
  CHECK(outcome.says("environment LISTEN_FDNAMES=one:two"));
  CHECK(outcome.says("listen-pid mine"));
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("log and notify sockets are where daemons look for them", "[sandbox]") {
  House house;
  const auto bound = [&house](const char* name) {
    const std::string path = house.top / name;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    REQUIRE(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::chmod(path.c_str(), 0666) == 0);
    return fd;
  };
  const UniqueFd log = bound("log.sock");
  const UniqueFd notify = bound("notify.sock");
  sandbox::LaunchInputs inputs;
  inputs.log_socket = house.top / "log.sock";
  inputs.notify_socket = house.top / "notify.sock";
  Mount inner;
  inner.kind = Mount::Kind::tmpfs;
  inner.target = "/run/inner/dev";
  inner.size = 4096;
  inner.mode = 0755;
  house.spec.mounts.push_back(inner);
  house.spec.log_sockets = {"/run/inner/dev/log"};
  house.ask({"datagram:/dev/log", "datagram:/run/systemd/notify", "environment", "chmod:/dev/log",
             "datagram:/run/inner/dev/log", "chmod:/run/inner/dev"});
  const Outcome outcome = live(house, inputs);
  INFO(outcome.step << outcome.output);
  CHECK(outcome.says("datagram /dev/log ok"));
  CHECK(outcome.says("datagram /run/systemd/notify ok"));
  CHECK(outcome.says("environment NOTIFY_SOCKET=/run/systemd/notify"));
  CHECK(outcome.says("chmod /dev/log EROFS"));
  char bytes[16];
  CHECK(::recv(log.get(), bytes, sizeof bytes, 0) == 5);
  CHECK(outcome.says("datagram /run/inner/dev/log ok"));
  CHECK(outcome.says("chmod /run/inner/dev EROFS"));
  CHECK(::recv(log.get(), bytes, sizeof bytes, 0) == 5);
  CHECK(::recv(notify.get(), bytes, sizeof bytes, 0) == 5);
}

TEST_CASE("a failed step is named, and nothing runs", "[sandbox]") {
  House house;
  house.ask({"host"});
  SECTION("no such program") {
    house.spec.argv = {"/bin/nothing"};
    fails_at(house, "exec /bin/nothing", ENOENT);
  }
  SECTION("no such working directory") {
    house.spec.cwd = "/nowhere";
    fails_at(house, "chdir", ENOENT);
  }
  SECTION("a working directory through a magic link") {
    house.spec.cwd = "/proc/self/fd/7";
    fails_at(house, "chdir", ENOENT);
    house.spec.cwd = "/proc/self/root";
    fails_at(house, "chdir", ELOOP);
  }
  SECTION("a source that is not there") {
    house.spec.mounts.back().source = "/tmp/no/such/place";
    fails_at(house, "mount /data", ENOENT);
    house.spec.mounts.back().optional = true;
    CHECK(live(house).exited);
  }
  SECTION("a source that is a symlink") {
    fs::create_symlink("/etc", house.top / "link");
    house.spec.mounts.back().source = house.top / "link";
    fails_at(house, "mount /data", ELOOP);
  }
  SECTION("a device that the tree does not have") {
    house.spec.devices = {{"urandom"}};
    fails_at(house, "mount /dev/urandom", ENOENT);
  }
  SECTION("a node with another device's name") {
    REQUIRE(::mknod((house.tree() / "dev/random").c_str(), S_IFCHR | 0666, ::makedev(1, 11)) == 0);
    house.spec.devices = {{"random"}};
    fails_at(house, "mount /dev/random", ENXIO);
  }
  SECTION("a device that is a link to elsewhere") {
    fs::create_symlink("../proc/sysrq-trigger", house.tree() / "dev/console");
    house.spec.devices = {{"console"}};
    fails_at(house, "mount /dev/console", ELOOP);
  }
  SECTION("a filter that the kernel refuses") {
    house.filter = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0)};
    fails_at(house, "seccomp", EINVAL);
  }
  SECTION("a limit that cannot be had") {
    house.spec.rlimits = {{"nofile", 512, 1UL << 60}};
    fails_at(house, "setrlimit nofile", EPERM);
    house.spec.rlimits.back().at_most = true;
    CHECK(live(house).exited);
  }
}

TEST_CASE("a tree that leads elsewhere is refused before anything starts", "[sandbox]") {
  House house;
  house.ask({"host"});
  const std::string name = GENERATE("dev", "proc", "data");
  fs::create_directory(house.top / "victim");
  fs::remove_all(house.tree() / name);
  fs::create_symlink(house.top / "victim", house.tree() / name);
  auto prepared = house.prepare();
  REQUIRE_FALSE(prepared);
  CHECK(prepared.error().exit == Exit::config);
  CHECK(fs::is_empty(house.top / "victim"));
}

TEST_CASE("a tree changed after it was prepared is refused by the step", "[sandbox]") {
  House house;
  house.ask({"host"});
  auto prepared = house.prepare();
  REQUIRE(prepared);
  fs::create_directory(house.top / "victim");
  fs::remove(house.tree() / "proc");
  fs::create_symlink(house.top / "victim", house.tree() / "proc");
  auto running = start(*prepared);
  REQUIRE(running);
  const Outcome outcome = finish(std::move(*running));
  CHECK(outcome.step == "mount /proc");
  CHECK(outcome.error == ELOOP);
}

TEST_CASE("bad generations are errors in words", "[sandbox]") {
  House house;
  house.ask({"host"});
  SECTION("an empty filter") {
    house.filter.clear();
  }
  SECTION("a target with dots") {
    house.spec.mounts.back().target = "/data/../etc";
  }
  SECTION("the root as a target") {
    house.spec.mounts.back().target = "/";
  }
  SECTION("a relative source") {
    house.spec.mounts.back().source = "tmp";
  }
  SECTION("a device above /dev") {
    house.spec.devices = {{"../etc/passwd"}};
  }
  SECTION("an unknown limit") {
    house.spec.rlimits = {{"beer", 1, 1}};
  }
  SECTION("an id that means nobody's") {
    house.spec.credentials.uid = 0xffffffff;
  }
  SECTION("a relative program") {
    house.spec.argv = {"probe"};
  }
  SECTION("an unknown demand") {
    house.spec.require = {"magic"};
  }
  SECTION("a tree that others may write to") {
    fs::permissions(house.tree(), fs::perms::all);
  }
  auto prepared = house.prepare();
  REQUIRE_FALSE(prepared);
  CHECK(prepared.error().exit == Exit::config);
  CHECK_FALSE(prepared.error().message.empty());
}

// Hidden: `integration_sandbox "[.time]"` prints how long a launch takes.
TEST_CASE("time of a launch", "[.time]") {
  House house;
  house.spec.network = LaunchSpec::Network::host;
  house.ask({"exit:0"});
  auto prepared = house.prepare();
  REQUIRE(prepared);
  std::vector<double> clone, run, end;
  for (int i = 0; i < 300; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const auto since = [begin] {
      return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
    };
    auto running = start(*prepared);
    REQUIRE(running);
    clone.push_back(since());
    REQUIRE(next_report(*running));
    run.push_back(since());
    REQUIRE(next_report(*running));
    end.push_back(since());
    finish(std::move(*running));
  }
  for (auto* times : {&clone, &run, &end}) std::sort(times->begin(), times->end());
  WARN("microseconds, median of 300: returned " << clone[150] << ", running " << run[150] << ", exited "
                                                << end[150]);
}
