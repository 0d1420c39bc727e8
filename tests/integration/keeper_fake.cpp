#include "keeper_fake.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "catch.h"
#include "one_process.h"
#include "supervisor/keeper/keeper.h"

namespace jail::test {
namespace {

using keeper::Client;
using std::chrono::milliseconds;

// ---- the fake jaild -------------------------------------------------------------------------------------

void say(const std::string& line) {
  const std::string text = line + "\n";
  if (::write(STDOUT_FILENO, text.data(), text.size()) < 0) ::_exit(99);
}

UniqueFd memory(const std::string& content) {
  UniqueFd fd(::memfd_create("kept", MFD_CLOEXEC));
  if (::write(fd.get(), content.data(), content.size()) < 0) ::_exit(98);
  return fd;
}

std::string content(int fd) {
  std::array<char, 256> bytes{};
  const ssize_t got = ::pread(fd, bytes.data(), bytes.size(), 0);
  return got < 0 ? "?" : std::string(bytes.data(), static_cast<std::size_t>(got));
}

class Fake {
 public:
  Fake(Client client, std::vector<std::string> arguments)
      : client_(std::move(client)), arguments_(std::move(arguments)) {}

  [[noreturn]] void run() {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int number : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&set, number);
    signals_.reset(::signalfd(-1, &set, SFD_CLOEXEC));
    std::string held;
    for (keeper::Held& item : client_.take_held()) {
      held += " " + item.name + "=" + content(item.fd.get());
      fds_.emplace_back(item.name, std::move(item.fd));
    }
    say(fmt::format("up {} {}{}", ::getpid(), ::getppid(), held));
    from_keeper();
    while (true) {
      std::array<pollfd, 3> fds{pollfd{0, POLLIN, 0}, pollfd{deaf_ ? -1 : client_.fd(), POLLIN, 0},
                                pollfd{signals_.get(), POLLIN, 0}};
      ::poll(fds.data(), fds.size(), -1);
      if (fds[1].revents != 0) from_keeper();
      if (fds[2].revents != 0) on_signal();
      if (fds[0].revents != 0) obey(read_line());
    }
  }

 private:
  // One byte at a time: what is not read now is for the next jaild.
  static std::string read_line() {
    std::string line;
    char byte = 0;
    while (::read(0, &byte, 1) == 1 && byte != '\n') line += byte;
    return line;
  }

  void on_signal() const {
    signalfd_siginfo info{};
    if (::read(signals_.get(), &info, sizeof info) != sizeof info) return;
    say(fmt::format("signal {}", info.ssi_signo));
    if (info.ssi_signo == SIGTERM && obeys_) ::_exit(7);
  }

  void from_keeper() {
    const auto ends = client_.on_readable();
    if (!ends) return replace();
    for (const keeper::Reaped& end : *ends) {
      say(fmt::format("reaped {} {}", end.pid, end.status));
      ++count_;
    }
  }

  void replace() {
    std::vector<std::pair<std::string, int>> held;
    for (const auto& [name, fd] : fds_) held.emplace_back(name, fd.get());
    const auto replaced = client_.replace_keeper(program_, arguments_, held);
    if (!replaced) {
      say("failed " + replaced.error().message);
      deaf_ = true;
      return;
    }
    say(fmt::format("replaced {} {}", ::getpid(), ::getppid()));
  }

  void store(const std::string& name) {
    const auto stored = client_.store(name, fds_.emplace_back(name, memory(name)).second.get());
    if (!stored) say("error " + stored.error().message);
  }

  // A service: a child of ours, that ends when it is told to (or at once).
  void spawn(const std::string& status, bool at_once) {
    sigset_t woken;
    sigset_t before;
    ::sigemptyset(&woken);
    ::sigaddset(&woken, SIGALRM);
    ::sigprocmask(SIG_BLOCK, &woken, &before);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(STDOUT_FILENO);
      ::alarm(60);
      int signal = 0;
      if (!at_once) ::sigwait(&woken, &signal);  // blocked since before the fork: it cannot come too early
      ::_exit(std::atoi(status.c_str()));
    }
    ::sigprocmask(SIG_SETMASK, &before, nullptr);
    say(fmt::format("{} {}", at_once ? "spawned" : "service", child));
  }

  // Orphans: grandchildren whose parent ends first.
  static void orphans(int count) {
    const pid_t parent = ::fork();
    if (parent == 0) {
      for (int i = 0; i < count; ++i)
        if (::fork() == 0) ::_exit(i % 100);
      ::_exit(0);
    }
    ::waitpid(parent, nullptr, 0);
    say("orphans");
  }

  void obey(const std::string& line) {
    const std::string word = line.substr(0, line.find(' '));
    const std::string rest = word.size() < line.size() ? line.substr(word.size() + 1) : "";
    if (word.empty()) ::_exit(0);  // the test is gone
    if (word == "exit") ::_exit(std::atoi(rest.c_str()));
    if (word == "abort") ::raise(SIGKILL + std::atoi(rest.c_str()));
    if (word == "store") store(rest);
    if (word == "many")
      for (int i = 0; i < std::atoi(rest.c_str()); ++i) store(fmt::format("n{:05}", i));
    if (word == "drop") (void)client_.drop(rest);
    if (word == "service") spawn(rest, false);
    if (word == "spawn") spawn(rest, true);
    if (word == "orphans") orphans(std::atoi(rest.c_str()));
    if (word == "program") program_ = rest;
    if (word == "ignore") obeys_ = false;
    if (word == "count") say(fmt::format("count {}", count_));
    if (word == "sync") say("sync");
  }

  Client client_;
  std::vector<std::string> arguments_;
  std::string program_ = keeper_program();
  std::vector<std::pair<std::string, UniqueFd>> fds_;
  UniqueFd signals_;
  bool obeys_ = true;
  bool deaf_ = false;
  int count_ = 0;
};

// Before Catch2's main: is this process to be a jaild?
[[gnu::constructor]] void maybe_fake(int argc, char** argv) {
  if (argc < 3 || std::strcmp(argv[1], "--keeper-fd=3") != 0) return;
  if (std::strcmp(argv[2], "crash") == 0) ::raise(SIGTRAP);
  if (std::strcmp(argv[2], "status") == 0) ::_exit(std::atoi(argv[3]));
  if (std::strcmp(argv[2], "fake-jaild") != 0) return;
  ::signal(SIGPIPE,
           SIG_IGN);  // when the test is gone the first word that we say ends us, and the keeper with us
  if (argc > 3 && std::strcmp(argv[3], "slow") == 0) ::usleep(300000);
  auto client = Client::connect(UniqueFd(3));
  if (!client) {
    say("error " + client.error().message);
    ::_exit(97);
  }
  std::vector<std::string> arguments(argv, argv + argc);
  arguments.erase(arguments.begin() + 1);
  Fake(std::move(*client), std::move(arguments)).run();
}

std::string own_program() {
  std::array<char, 4096> path{};
  const ssize_t length = ::readlink("/proc/self/exe", path.data(), path.size());
  return {path.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0))};
}

}  // namespace

std::string keeper_program() {
  const std::string own = own_program();
  return own.substr(0, own.rfind('/')) + "/jail-keeper";
}

// ---- the test's side --------------------------------------------------------------------------------------

KeeperProcess::KeeperProcess(std::vector<std::string> prefix, std::vector<std::string> fake) {
  std::array<int, 2> in{};
  std::array<int, 2> out{};
  REQUIRE(::pipe2(in.data(), O_CLOEXEC) == 0);
  REQUIRE(::pipe2(out.data(), O_CLOEXEC) == 0);
  in_.reset(in[1]);
  out_.reset(out[0]);
  std::vector<std::string> words = std::move(prefix);
  words.insert(words.end(), {keeper_program(), own_program()});
  words.insert(words.end(), fake.begin(), fake.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid = ::fork();
  if (pid == 0) {
    ::dup2(in[0], 0);
    ::dup2(out[1], 1);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(in[0]);
  ::close(out[1]);
  if (fake.front() == "fake-jaild") hear("up");
}

KeeperProcess::~KeeperProcess() {
  in_.reset();  // the fake ends by it, in order, and the keeper with the fake
  std::string line;
  while (next_line(line, milliseconds(1000))) {
  }
  if (pid <= 0) return;
  signal_one(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
}

void KeeperProcess::tell(const std::string& line) const {
  const std::string text = line + "\n";
  REQUIRE(::write(in_.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

bool KeeperProcess::next_line(std::string& line, milliseconds time) {
  const auto until = std::chrono::steady_clock::now() + time;
  while (true) {
    const std::size_t end = buffer_.find('\n');
    if (end != std::string::npos) {
      line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return true;
    }
    const auto left = std::chrono::duration_cast<milliseconds>(until - std::chrono::steady_clock::now());
    pollfd watched{out_.get(), POLLIN, 0};
    if (left.count() < 0 || ::poll(&watched, 1, static_cast<int>(left.count())) != 1) return false;
    std::array<char, 4096> bytes{};
    const ssize_t got = ::read(out_.get(), bytes.data(), bytes.size());
    if (got <= 0) return false;
    buffer_.append(bytes.data(), static_cast<std::size_t>(got));
  }
}

std::string KeeperProcess::hear(const std::string& word) {
  std::string line;
  while (next_line(line, milliseconds(10000))) {
    if (line.starts_with("error")) FAIL_CHECK(line);
    if (line != word && !line.starts_with(word + " ")) continue;
    std::string rest = line.size() > word.size() ? line.substr(word.size() + 1) : "";
    if (word == "up") {
      const std::size_t space = rest.find(' ', rest.find(' ') + 1);
      jaild = std::atoi(rest.c_str());
      held = space == std::string::npos ? "" : rest.substr(space + 1);
    }
    return rest;
  }
  FAIL("no \"" << word << "\" was heard");
  return "";
}

bool KeeperProcess::silent(const std::string& word, milliseconds time) {
  std::string line;
  while (next_line(line, time))
    if (line.starts_with(word)) return false;
  return true;
}

std::string KeeperProcess::ask(const std::string& word, const std::string& rest) {
  tell(rest.empty() ? word : word + " " + rest);
  return hear(word);
}

int KeeperProcess::wait() const {
  for (int i = 0; i < 1000; ++i) {
    int status = 0;
    if (::waitpid(pid, &status, WNOHANG) == pid) {
      const_cast<KeeperProcess*>(this)->pid = -1;
      return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    ::usleep(10000);
  }
  FAIL("the keeper does not end");
  return -1;
}

}  // namespace jail::test
