// What a daemon finds itself to be: the probe looks from inside a jail, whoever launched it.
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "catch.h"
#include "sandbox_house.h"
#include "supervisor/sandbox/features.h"

using namespace jail;
using namespace jail::test;
namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t bit(unsigned capability) {
  return std::uint64_t{1} << capability;
}

/// As /proc/PID/status has it: "CapEff:\t0000000000000400".
std::string mask_line(const char* name, std::uint64_t mask) {
  return fmt::format("{}:\t{:016x}", name, mask);
}

/// A launcher as untidy as they come: this process, with 200 open descriptors of all kinds that survive an
/// exec, supplementary groups, inheritable and ambient capabilities, signals blocked and ignored, no umask,
/// and an environment that steers loaders. Tidy again when it goes out of scope.
class Untidy {
 public:
  Untidy() {
    open_many();
    groups_.resize(static_cast<std::size_t>(::getgroups(0, nullptr)));
    REQUIRE(::getgroups(static_cast<int>(groups_.size()), groups_.data()) >= 0);
    const std::array<gid_t, 3> groups = {0, 27, 999};
    REQUIRE(::setgroups(groups.size(), groups.data()) == 0);
    umask_ = ::umask(0);
    for (std::size_t i = 0; i < ignored.size(); ++i) {
      struct sigaction ignore {};
      ignore.sa_handler = SIG_IGN;
      REQUIRE(::sigaction(ignored[i], &ignore, &actions_[i]) == 0);
    }
    sigset_t all;
    ::sigfillset(&all);
    REQUIRE(::sigprocmask(SIG_SETMASK, &all, &mask_) == 0);
    REQUIRE(::syscall(SYS_capget, &header_, capabilities_.data()) == 0);
    auto inheriting = capabilities_;
    for (auto& half : inheriting) half.inheritable = half.permitted;
    REQUIRE(::syscall(SYS_capset, &header_, inheriting.data()) == 0);
    REQUIRE(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0) == 0);
    for (const char* name : variables) REQUIRE(::setenv(name, "/nowhere", 1) == 0);
  }
  ~Untidy() {
    for (const char* name : variables) ::unsetenv(name);
    ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    ::syscall(SYS_capset, &header_, capabilities_.data());
    ::sigprocmask(SIG_SETMASK, &mask_, nullptr);
    for (std::size_t i = 0; i < ignored.size(); ++i) ::sigaction(ignored[i], &actions_[i], nullptr);
    ::umask(umask_);
    ::setgroups(groups_.size(), groups_.data());
  }
  Untidy(const Untidy&) = delete;
  Untidy& operator=(const Untidy&) = delete;

 private:
  static constexpr std::array<int, 4> ignored = {SIGTERM, SIGHUP, SIGPIPE, SIGUSR1};
  static constexpr std::array<const char*, 5> variables = {"LD_PRELOAD", "GCONV_PATH", "LISTEN_FDS",
                                                           "NOTIFY_SOCKET", "RES_OPTIONS"};

  void keep(int fd) {
    REQUIRE(fd >= 0);
    fds_.emplace_back(fd);
  }
  void open_many() {
    sigset_t none;
    ::sigemptyset(&none);
    while (fds_.size() < 200) {
      keep(::open("/etc/passwd", O_RDONLY));
      keep(::open("/", O_RDONLY | O_DIRECTORY));
      keep(::open("/", O_PATH));
      keep(::socket(AF_INET, SOCK_STREAM, 0));
      keep(::memfd_create("left", 0));
      keep(::epoll_create1(0));
      keep(::eventfd(0, 0));
      keep(::timerfd_create(CLOCK_MONOTONIC, 0));
      keep(::signalfd(-1, &none, 0));
      keep(::inotify_init1(0));
      keep(::open("/proc/self/ns/mnt", O_RDONLY));
      keep(::posix_openpt(O_RDWR | O_NOCTTY));
      const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0));
      REQUIRE(::fcntl(pidfd, F_SETFD, 0) == 0);
      keep(pidfd);
      int ends[2];
      REQUIRE(::pipe(ends) == 0);
      keep(ends[0]);
      keep(ends[1]);
      REQUIRE(::socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0);
      keep(ends[0]);
      keep(ends[1]);
    }
    keep(::fcntl(fds_.front().get(), F_DUPFD, 900));  // far above the others
  }

  std::vector<UniqueFd> fds_;
  std::vector<gid_t> groups_;
  mode_t umask_ = 0;
  std::array<struct sigaction, ignored.size()> actions_{};
  sigset_t mask_{};
  __user_cap_header_struct header_{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> capabilities_{};
};

/// Launched by an untidy process, under the filter of a real daemon. It must run.
Outcome from_untidy(House& house, const sandbox::LaunchInputs& inputs = {}) {
  house.filter = daemon_filter();
  const Untidy untidy;
  Outcome outcome = live(house, inputs);
  INFO(outcome.step << " " << outcome.error << "\n" << outcome.output);
  REQUIRE(outcome.exited);
  REQUIRE(outcome.status == 0);
  return outcome;
}

std::string status_of(pid_t pid) {
  std::ostringstream text;
  text << std::ifstream(fmt::format("/proc/{}/status", pid)).rdbuf();
  return text.str();
}

std::set<std::string> descriptors_of(pid_t pid) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(fmt::format("/proc/{}/fd", pid)))
    names.insert(entry.path().filename());
  return names;
}

}  // namespace

TEST_CASE("of 200 open descriptors none gets in but what is passed", "[sandbox][inside]") {
  House house;
  house.ask({"fds", "link:/proc/self/fd/1", "stdin-read", "stdin-mode", "directory"});
  SECTION("nothing is passed") {
    CHECK(from_untidy(house).says("fds 0 1 2"));
  }
  SECTION("a socket is passed") {
    const UniqueFd socket(::socket(AF_INET, SOCK_STREAM, 0));
    sandbox::LaunchInputs inputs;
    inputs.sockets = {{socket.get(), "one"}};
    CHECK(from_untidy(house, inputs).says("fds 0 1 2 3"));
  }
  SECTION("what they are") {
    const Outcome outcome = from_untidy(house);
    INFO(outcome.output);
    CHECK(outcome.lines("link /proc/self/fd/1 pipe:[").size() == 1);
    CHECK(outcome.says("stdin-read 0"));
    CHECK(outcome.lines("stdin-mode ") == std::vector<std::string>{"EROFS"});
    CHECK(outcome.says("directory /"));
  }
}

TEST_CASE("ids, groups and capabilities are the spec's, to the bit", "[sandbox][inside]") {
  House house;
  house.ask({"status"});
  Credentials& who = house.spec.credentials;
  const std::uint64_t some = bit(CAP_NET_BIND_SERVICE) | bit(CAP_CHOWN) | bit(CAP_CHECKPOINT_RESTORE);
  struct Case {
    std::uint32_t id;
    std::uint64_t capabilities;
    std::vector<std::uint32_t> groups;
    const char* groups_line;
  };
  const auto [id, capabilities, groups, groups_line] = GENERATE_COPY(values<Case>({
      {4001, 0, {4003, 4004}, "4003 4004 "},
      {4001, some, {4004, 4003}, "4003 4004 "},
      {4001, some, {}, " "},
      {0, 0, {}, " "},
      {0, some, {4003}, "4003 "},
  }));
  who.uid = id;
  who.gid = id + 1;
  who.groups = groups;
  who.capabilities = capabilities;
  const Outcome outcome = from_untidy(house);
  INFO(outcome.output);
  CHECK(outcome.says(fmt::format("status Uid:\t{0}\t{0}\t{0}\t{0}", id)));
  CHECK(outcome.says(fmt::format("status Gid:\t{0}\t{0}\t{0}\t{0}", id + 1)));
  CHECK(outcome.says(fmt::format("status Groups:\t{}", groups_line)));
  for (const char* set : {"CapPrm", "CapEff", "CapBnd"})
    CHECK(outcome.says("status " + mask_line(set, capabilities)));
  for (const char* set : {"CapInh", "CapAmb"})  // root's programs have theirs by being root's
    CHECK(outcome.says("status " + mask_line(set, id == 0 ? 0 : capabilities)));
  CHECK(outcome.says("status NoNewPrivs:\t1"));
  CHECK(outcome.says("status Seccomp:\t2"));
  CHECK(outcome.says("status Seccomp_filters:\t1"));
}

TEST_CASE("root's ids cannot be had back", "[sandbox][inside]") {
  House house;
  house.ask({"regain", "status"});
  const std::uint64_t capabilities = GENERATE(std::uint64_t{0}, bit(CAP_NET_BIND_SERVICE));
  house.spec.credentials.capabilities = capabilities;  // by the kernel alone: the filter allows everything
  const Outcome outcome = live(house);
  INFO(outcome.output);
  CHECK(outcome.says("regain uid EPERM"));
  CHECK(outcome.says("regain gid EPERM"));
  CHECK(outcome.says("regain groups EPERM"));
  CHECK(outcome.says("status Uid:\t4001\t4001\t4001\t4001"));
}

TEST_CASE("a root daemon that leaves root keeps nothing", "[sandbox][inside]") {
  House house;
  Credentials& who = house.spec.credentials;
  who.uid = who.gid = 0;
  who.groups = {};
  who.capabilities = bit(CAP_SETUID) | bit(CAP_SETGID) | bit(CAP_NET_BIND_SERVICE);
  house.ask({"become:4001", "regain", "status"});
  const Outcome outcome = live(house);
  INFO(outcome.output);
  CHECK(outcome.says("become uid ok"));
  CHECK(outcome.says("regain uid EPERM"));
  CHECK(outcome.says("status Uid:\t4001\t4001\t4001\t4001"));
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapAmb"})
    CHECK(outcome.says("status " + mask_line(set, 0)));
}

TEST_CASE("signals, umask and scheduling are not the launcher's", "[sandbox][inside]") {
  House house;
  house.ask({"status", "mask", "priority", "limit", "cat:/proc/self/oom_score_adj"});
  house.spec.nice = 3;
  house.spec.oom_score_adjust = 200;
  house.spec.credentials.umask = GENERATE(022U, 077U);
  const Outcome outcome = from_untidy(house);
  INFO(outcome.output);
  for (const char* set : {"SigPnd", "ShdPnd", "SigBlk", "SigIgn"})
    CHECK(outcome.says("status " + mask_line(set, 0)));
  CHECK(outcome.says(fmt::format("mask {:03o}", house.spec.credentials.umask)));
  CHECK(outcome.says("priority 3"));
  CHECK(outcome.says("limit nofile 512 1024"));
  CHECK(outcome.says("cat 200"));
}

TEST_CASE("a session and namespaces of its own", "[sandbox][inside]") {
  House house;
  house.ask({"session", "namespaces", "host"});
  house.spec.network =
      GENERATE(LaunchSpec::Network::host, LaunchSpec::Network::none, LaunchSpec::Network::private_);
  const Outcome outcome = from_untidy(house);
  INFO(outcome.output);
  CHECK(outcome.says("session pid=2 sid=2 pgid=2 ppid=1"));
  CHECK(outcome.says("host jailed"));
  const auto ours = [&outcome](const std::string& name) {
    const std::string path = "/proc/self/ns/" + name;
    const auto theirs = outcome.lines("link " + path + " ");
    REQUIRE(theirs.size() == 1);
    REQUIRE(theirs.front().starts_with(name + ":["));
    return theirs.front() == fs::read_symlink(path);
  };
  for (const char* name : {"pid", "ipc", "uts", "mnt", "cgroup"}) {
    INFO(name);
    CHECK_FALSE(ours(name));
  }
  CHECK(ours("net") == (house.spec.network == LaunchSpec::Network::host));
  CHECK(ours("user"));
}

TEST_CASE("the environment is the spec's and nothing else", "[sandbox][inside]") {
  House house;
  house.ask({"environment"});
  house.spec.env = {"PATH=/bin", "TZ=UTC", "EMPTY="};
  CHECK(from_untidy(house).lines("environment ") == house.spec.env);
}

TEST_CASE("the tree cannot be written to, not by its owner either", "[sandbox][inside]") {
  House house;
  std::ofstream(house.tree() / "etc/file") << "text\n";
  // Nodes in the tree are none to the daemon: only those of /dev are.
  REQUIRE(::mknod((house.tree() / "etc/zero").c_str(), S_IFCHR | 0666, ::makedev(1, 5)) == 0);
  REQUIRE(::chmod((house.tree() / "etc/zero").c_str(), 0666) == 0);
  house.spec.credentials.uid = house.spec.credentials.gid = 0;
  house.spec.credentials.capabilities = bit(CAP_DAC_OVERRIDE) | bit(CAP_FOWNER);
  house.ask({"touch:/new", "make:/etc/new", "write:/etc/file", "chmod:/etc/file", "chmod:/bin/probe",
             "touch:/dev/new", "chmod:/dev/null", "write:/dev/null", "read:/etc/zero", "touch:/tmp/new",
             "touch:/data/new"});
  const Outcome outcome = live(house);
  INFO(outcome.output);
  for (const char* line :
       {"touch /new EROFS", "make /etc/new EROFS", "write /etc/file EROFS", "chmod /etc/file EROFS",
        "chmod /bin/probe EROFS", "touch /dev/new EROFS", "chmod /dev/null EROFS", "write /dev/null ok",
        "read /etc/zero EACCES", "touch /tmp/new ok", "touch /data/new ok"}) {
    INFO(line);
    CHECK(outcome.says(line));
  }
  CHECK(fs::exists(house.top / "volume/new"));
  CHECK_FALSE(fs::exists(house.tree() / "new"));
}

TEST_CASE("the mounts are the spec's, each with the least that it needs", "[sandbox][inside]") {
  House house;
  house.ask({"mounts"});
  const Outcome outcome = from_untidy(house);
  INFO(outcome.output);
  std::map<std::string, std::set<std::string>> mounts;
  for (const std::string& line : outcome.lines("mounts ")) {
    std::istringstream words(line);
    std::string source, target, type, options;
    words >> source >> target >> type >> options;
    CHECK(mounts.count(target) == 0);
    std::istringstream list(options);
    for (std::string option; std::getline(list, option, ',');) mounts[target].insert(option);
  }
  const std::map<std::string, std::vector<std::string>> expected = {
      {"/", {"ro", "nosuid", "nodev"}},
      {"/dev", {"ro", "nosuid", "nodev", "noexec"}},
      {"/dev/null", {"ro", "nosuid", "noexec"}},
      {"/proc", {"ro", "nosuid", "nodev", "noexec", "hidepid=invisible", "subset=pid"}},
      {"/tmp", {"rw", "nosuid", "nodev", "noexec"}},
      {"/run", {"rw", "nosuid", "nodev", "noexec"}},
      {"/data", {"rw", "nosuid", "nodev", "noexec"}},
  };
  CHECK(mounts.size() == expected.size());
  for (const auto& [target, options] : expected)
    for (const std::string& option : options) {
      INFO(target << " " << option);
      CHECK(mounts[target].count(option) == 1);
    }
}

TEST_CASE("/proc shows the daemon and nothing of the host", "[sandbox][inside]") {
  House house;
  const std::uint32_t id = GENERATE(4001U, 0U);
  house.spec.credentials.uid = house.spec.credentials.gid = id;
  // The init is hidden from root, too, whose group hidepid spares unless told otherwise.
  const std::vector<std::string> hidden = {"/proc/sys",  "/proc/sysrq-trigger", "/proc/kcore",
                                           "/proc/kmsg", "/proc/keys",          "/proc/config.gz",
                                           "/proc/net",  "/proc/1/root",        "/proc/1/exe"};
  std::vector<std::string> verbs = {"list:/proc/self/status", "list:/proc/1", "make:/sys/fs/cgroup/x",
                                    "write:/proc/self/exe", "write:/proc/self/oom_score_adj"};
  for (const std::string& path : hidden) {
    verbs.push_back("list:" + path);
    verbs.push_back("write:" + path);
  }
  house.ask(verbs);
  const Outcome outcome = live(house);
  INFO(outcome.output);
  CHECK(outcome.says("list /proc/self/status ok"));
  CHECK(outcome.says("list /proc/1 ENOENT"));
  for (const std::string& path : hidden) {
    INFO(path);
    CHECK(outcome.says("list " + path + " ENOENT"));
    CHECK(outcome.says("write " + path + " ENOENT"));
  }
  CHECK(outcome.says("make /sys/fs/cgroup/x ENOENT"));
  CHECK_FALSE(outcome.says("write /proc/self/exe ok"));
  CHECK(outcome.says("write /proc/self/oom_score_adj EROFS"));
}

TEST_CASE("the jail's init is nobody, with one descriptor", "[sandbox][inside]") {
  House house;
  house.ask({"wait"});
  auto prepared = house.prepare();
  REQUIRE(prepared);
  auto running = [&prepared] {
    const Untidy untidy;
    return start(*prepared);
  }();
  REQUIRE(running);
  auto report = next_report(*running);
  REQUIRE(report);
  REQUIRE(report->kind == sandbox::Report::Kind::running);
  const pid_t init = running->launched.init_pid;
  // It closes the last of those that set-up needed right after its report.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (descriptors_of(init).size() > 1 && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(descriptors_of(init) == std::set<std::string>{"3"});
  const std::string status = "\n" + status_of(init);
  INFO(status);
  for (const std::string& line :
       {std::string("Uid:\t65534\t65534\t65534\t65534"), std::string("Gid:\t65534\t65534\t65534\t65534"),
        std::string("Groups:\t "), std::string("NoNewPrivs:\t1"), std::string("Seccomp:\t2"),
        mask_line("SigBlk", 0), mask_line("SigIgn", 0), mask_line("CapInh", 0), mask_line("CapPrm", 0),
        mask_line("CapEff", 0), mask_line("CapBnd", 0), mask_line("CapAmb", 0)}) {
    INFO(line);
    CHECK(status.find("\n" + line + "\n") != std::string::npos);
  }
  REQUIRE(::syscall(SYS_pidfd_send_signal, report->daemon.get(), SIGKILL, nullptr, 0) == 0);
  CHECK(finish(std::move(*running)).exited);
}

namespace {

/// A TCP socket at a free port of 127.0.0.1.
struct Listener {
  UniqueFd fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  std::uint16_t port = 0;
  Listener() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    REQUIRE(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(fd.get(), 8) == 0);
    REQUIRE(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port = ntohs(address.sin_port);
  }
};

/// A port that was free a moment ago.
std::uint16_t free_port() {
  return Listener().port;
}

}  // namespace

TEST_CASE("no port of TCP but those of the manifest is bound or connected to", "[sandbox][inside]") {
  House house;
  house.spec.network = LaunchSpec::Network::host;
  const Listener friendly, other;
  const std::string own = std::to_string(free_port()), strange = std::to_string(free_port());
  const std::string allowed = std::to_string(friendly.port), refused = std::to_string(other.port);
  house.ask({"tcp-connect:" + allowed, "tcp-connect:" + refused, "tcp-bind:" + own, "tcp-bind:" + strange,
             "tcp-bind:" + allowed, "tcp-bind:0", "udp-bind:" + strange});
  house.spec.connect_ports = {{Port::Protocol::tcp, friendly.port}, {Port::Protocol::udp, other.port}};
  house.spec.listen_ports = {{Port::Protocol::tcp, static_cast<std::uint16_t>(std::stoi(own))},
                             {Port::Protocol::udp, static_cast<std::uint16_t>(std::stoi(strange))}};
  const bool can = sandbox::probe_extras().landlock_abi >= 4;
  bool restricted = can;
  SECTION("named in the manifest") {
    house.spec.restrict_ports = true;
    house.filter = daemon_filter();
  }
  SECTION("not spoken of") {
    restricted = false;
  }
  const auto prepared = house.prepare();
  REQUIRE(prepared);
  const std::string not_enforced = fmt::format("{}", fmt::join(prepared->not_enforced(), "\n"));
  CHECK((not_enforced.find("ports of udp") != std::string::npos) == house.spec.restrict_ports);
  CHECK((not_enforced.find("landlock-net") != std::string::npos) == (house.spec.restrict_ports && !can));
  const Outcome outcome = live(house);
  INFO(outcome.output);
  const char* answer = restricted ? "EACCES" : "ok";
  CHECK(outcome.says("tcp-connect " + allowed + " ok"));
  CHECK(outcome.says("tcp-connect " + refused + " " + answer));
  CHECK(outcome.says("tcp-bind " + own + " ok"));
  CHECK(outcome.says("tcp-bind " + strange + " " + answer));
  CHECK(outcome.says("tcp-bind " + allowed + (restricted ? " EACCES" : " EADDRINUSE")));
  CHECK(outcome.says("tcp-bind 0 ok"));
  CHECK(outcome.says("udp-bind " + strange + " ok"));
}
