// What a daemon that has been taken over tries: refused by the filter of a real service, and where the filter
// allows everything, by what the jail is made of. Each way out is also shown to work where it should.
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <fstream>
#include <map>

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

/// Run by no launcher of ours: chroot(2) into the tree, as the old guides have it.
std::string in_bare_chroot(const House& house, const std::string& verb) {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const UniqueFd output(ends[0]);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(ends[1], 1);
    if (::chroot(house.tree().c_str()) < 0 || ::chdir("/") < 0) ::_exit(1);
    ::execl("/bin/probe", "probe", verb.c_str(), nullptr);
    ::_exit(1);
  }
  ::close(ends[1]);
  std::string text;
  char bytes[512];
  for (ssize_t length; (length = ::read(output.get(), bytes, sizeof bytes)) > 0;)
    text.append(bytes, static_cast<std::size_t>(length));
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  return text;
}

/// A pair of pseudo terminal ends whose queue takes single bytes.
struct Terminal {
  UniqueFd master, slave;

  Terminal() {
    int ends[2];
    REQUIRE(::openpty(&ends[0], &ends[1], nullptr, nullptr, nullptr) == 0);
    master.reset(ends[0]);
    slave.reset(ends[1]);
    termios raw{};
    REQUIRE(::tcgetattr(slave.get(), &raw) == 0);
    ::cfmakeraw(&raw);
    REQUIRE(::tcsetattr(slave.get(), TCSANOW, &raw) == 0);
  }
  [[nodiscard]] int queued() const {
    int count = -1;
    REQUIRE(::ioctl(slave.get(), FIONREAD, &count) == 0);
    return count;
  }
};

}  // namespace

TEST_CASE("the filter of a real service refuses what gives power", "[sandbox][escape]") {
  const std::map<std::string, std::string> expected = {
      {"mount", "EPERM"},
      {"umount2", "EPERM"},
      {"pivot_root", "EPERM"},
      {"chroot", "EPERM"},
      {"open_tree", "EPERM"},
      {"open_tree_attr", "ENOSYS"},  // younger than the policy
      {"move_mount", "EPERM"},
      {"fsopen", "EPERM"},
      {"fsconfig", "EPERM"},
      {"fsmount", "EPERM"},
      {"fspick", "EPERM"},
      {"mount_setattr", "EPERM"},
      {"unshare-user", "EPERM"},
      {"unshare-mount", "EPERM"},
      {"unshare-nothing", "EPERM"},
      {"setns", "EPERM"},
      {"clone-user", "EPERM"},
      {"clone-mount", "EPERM"},
      {"clone3", "ENOSYS"},  // so that the C library takes clone
      {"io_uring_setup", "ENOSYS"},
      {"io_uring_enter", "ENOSYS"},
      {"io_uring_register", "ENOSYS"},
      {"ptrace", "EPERM"},
      {"process_vm_readv", "EPERM"},
      {"process_vm_writev", "EPERM"},
      {"pidfd_getfd", "EPERM"},
      {"keyctl", "EPERM"},
      {"add_key", "EPERM"},
      {"request_key", "EPERM"},
      {"bpf", "EPERM"},
      {"perf_event_open", "EPERM"},
      {"userfaultfd", "EPERM"},
      {"open_by_handle_at", "EPERM"},
      {"kexec_load", "EPERM"},
      {"finit_module", "EPERM"},
      {"reboot", "EPERM"},
      {"tiocsti", "EPERM"},
      {"tiocsti-high", "EPERM"},
      {"tioclinux", "EPERM"},
      {"tioclinux-high", "EPERM"},
      {"tcgets", "ENOTTY"},  // other requests pass
      {"socket-packet", "EAFNOSUPPORT"},
      {"socket-alg", "EAFNOSUPPORT"},
      {"socket-vsock", "EAFNOSUPPORT"},
      {"socket-audit", "EPROTONOSUPPORT"},
      {"socket-inet", "ok"},
  };
  House house;
  house.filter = daemon_filter();
  house.ask({"call", "thread"});
  SECTION("to a user") {}
  SECTION("to root") {
    house.spec.credentials.uid = house.spec.credentials.gid = 0;
    house.spec.credentials.groups = {};
  }
  const Outcome outcome = live(house);
  INFO(outcome.output);
  for (const auto& [name, answer] : expected) {
    INFO(name);
    CHECK(outcome.says("call " + name + " " + answer));
  }
  CHECK(outcome.lines("call ").size() == expected.size());
  CHECK(outcome.says("thread ok"));
}

TEST_CASE("without that filter the same calls reach the kernel", "[sandbox][escape]") {
  const std::map<std::string, std::string> expected = {
      {"open_tree", "ok"},       {"chroot", "ENOENT"},       {"unshare-nothing", "ok"},
      {"setns", "EBADF"},        {"clone3", "EINVAL"},       {"process_vm_readv", "ok"},
      {"pidfd_getfd", "EBADF"},  {"ptrace", "ok"},           {"move_mount", "EPERM"},
      {"tiocsti", "ENOTTY"},     {"tiocsti-high", "ENOTTY"}, {"tioclinux-high", "ENOTTY"},
      {"socket-packet", "EPERM"}};
  House house;
  std::vector<std::string> verbs;
  for (const auto& [name, answer] : expected) verbs.push_back("call:" + name);
  house.ask(verbs);
  const Outcome outcome = live(house);
  INFO(outcome.output);
  for (const auto& [name, answer] : expected) {
    INFO(name);
    CHECK(outcome.says("call " + name + " " + answer));
  }
}

TEST_CASE("a call of another architecture is the daemon's last", "[sandbox][escape]") {
  House house;
  house.filter = daemon_filter();
  const std::string verb = GENERATE("x32", "32-bit");
  house.ask({"host", verb, "host"});
  const Outcome outcome = live(house);
  INFO(verb << "\n" << outcome.output);
  REQUIRE(outcome.exited);
  REQUIRE(WIFSIGNALED(outcome.status));
  CHECK(WTERMSIG(outcome.status) == SIGSYS);
  CHECK(outcome.output == "host jailed\n");
}

TEST_CASE("the ways out of a chroot lead nowhere", "[sandbox][escape]") {
  House house;
  const fs::path mark = house.top / "mark";
  std::ofstream(mark) << "the host\n";
  const std::string verb = GENERATE("escape", "escape-move") + (":" + mark.string());
  house.ask({verb, "list:" + mark.string(), "list:/../../../.." + mark.string(),
             "list:/proc/self/root/../.." + mark.string(), "list:/proc/self/cwd/../.." + mark.string(),
             "list:/proc/1/root" + mark.string(), "node:/tmp/disk", "call:mount"});
  Credentials& who = house.spec.credentials;
  who.capabilities = bit(CAP_SYS_CHROOT);
  if (GENERATE(true, false)) {
    who.uid = who.gid = 0;
    who.capabilities |= bit(CAP_DAC_OVERRIDE);
  }
  const Outcome outcome = live(house);
  INFO(verb << "\n" << outcome.output);
  CHECK(outcome.says("escape chroot ok"));
  CHECK(outcome.says("escape mark ENOENT"));
  const auto seen = outcome.lines("list ");
  CHECK(seen.size() == 5);
  for (const std::string& line : seen) CHECK(line.ends_with(" ENOENT"));
  CHECK(outcome.says("node mknod EPERM"));
  CHECK(outcome.says("call mount EPERM"));

  // Out of a mere chroot both do lead.
  const std::string bare = in_bare_chroot(house, verb);
  CHECK(bare == "escape chroot ok\nescape mark ok\n");
}

TEST_CASE("no byte gets into the launcher's terminal", "[sandbox][escape]") {
  House house;
  house.ask({"push:3", "session", "list:/dev/tty"});
  const Terminal terminal;
  sandbox::LaunchInputs inputs;
  inputs.sockets = {{terminal.slave.get(), "terminal"}};
  if (GENERATE(true, false)) house.filter = daemon_filter();
  const Outcome outcome = live(house, inputs);
  INFO(outcome.output);
  CHECK(outcome.lines("push ").size() == 2);
  for (const std::string& line : outcome.lines("push "))
    CHECK((line.ends_with(" EPERM") || line.ends_with(" EIO")));
  CHECK(outcome.says("session pid=2 sid=2 pgid=2 ppid=1"));
  CHECK(outcome.says("list /dev/tty ENOENT"));
  CHECK(terminal.queued() == 0);
  REQUIRE(::ioctl(terminal.slave.get(), TIOCSTI, "x") == 0);  // we could
  CHECK(terminal.queued() == 1);
}

TEST_CASE("the init cannot be reached by its daemon", "[sandbox][escape]") {
  House house;
  house.ask({"init"});
  Credentials& who = house.spec.credentials;
  SECTION("a user") {}
  SECTION("root") {
    who.uid = who.gid = 0;
  }
  const Outcome outcome = live(house);
  INFO(outcome.output);
  CHECK(outcome.exited);
  for (const char* line : {"init ptrace EPERM", "init kill EPERM", "init exe ENOENT", "init vm EPERM"}) {
    INFO(line);
    CHECK(outcome.says(line));
  }
  CHECK(outcome.says("init dir ENOENT"));
}

TEST_CASE("no keys are shared", "[sandbox][escape]") {
  House house;
  house.ask({"keyring"});
  const long ours = ::syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 1);
  const Outcome outcome = live(house);
  INFO(outcome.output);
  const auto answers = outcome.lines("keyring ");
  REQUIRE(answers.size() == 1);
  if (ours < 0) {
    CHECK(answers.front() == "-1");  // a kernel without keys
  } else {
    CHECK(std::stol(answers.front()) > 0);
    CHECK(std::stol(answers.front()) != ours);
  }
}

TEST_CASE("what this kernel adds holds inside", "[sandbox][escape]") {
  House house;
  house.spec.network = LaunchSpec::Network::host;
  const std::string name = house.top.filename();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path + 1, sizeof address.sun_path - 1);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(::listen(listener.get(), 1) == 0);
  house.ask({"memory", "abstract:" + name});
  const Outcome outcome = live(house);
  INFO(outcome.output);
  const sandbox::Features features = sandbox::probe_extras();
  CHECK(outcome.says(features.mdwe ? "memory EACCES" : "memory ok"));
  CHECK(outcome.says(features.landlock_abi >= 6 ? "abstract EPERM" : "abstract ok"));
}
