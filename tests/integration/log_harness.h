// A small jaild for the tests of the relay: it polls what Relay asks for, and that is all.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "supervisor/log/relay.h"

namespace log_test {

using namespace jail;
using namespace jail::log;
using namespace std::chrono_literals;

/// A directory below /tmp, removed at the end.
struct TempDir {
  std::string path;
  TempDir() {
    char name[] = "/tmp/jail-log-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path = name;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

inline std::string program_path() {
  const char* bin = ::getenv("JAIL_BIN");
  if (bin != nullptr) return std::string(bin) + "/jail-relay";
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().string() + "/jail-relay";
}

/// jail-relay beside this test or, as ctest builds it, in the bin directory.
inline UniqueFd open_program() {
  for (const std::string& path :
       {program_path(),
        std::filesystem::read_symlink("/proc/self/exe").parent_path().string() + "/../bin/jail-relay"}) {
    UniqueFd fd(::open(path.c_str(), O_PATH | O_CLOEXEC));
    if (fd) return fd;
  }
  FAIL("jail-relay is not built");
  return {};
}

struct Bench {
  TempDir dir;
  UniqueFd program = open_program();
  std::string logs = dir.path + "/log";
  Relay relay;
  Clock::time_point next{};
  std::vector<std::string> notes;

  explicit Bench(std::string host = {}, UniqueFd ring = {})
      : relay(start(std::move(host), std::move(ring))) {}

  Relay start(std::string host, UniqueFd ring) {
    Relay::Options options;
    options.program_fd = program.get();
    options.log_dir = logs;
    options.host_syslog = std::move(host);
    options.ring = std::move(ring);
    auto started = Relay::start(std::move(options));
    REQUIRE(started.has_value());
    return std::move(*started);
  }

  Channel channel(const std::string& name) {
    auto made = make_channel(dir.path + "/" + name, 65534);
    if (!made) FAIL(made.error().message);
    REQUIRE(relay.add(name, *made).has_value());
    return std::move(*made);
  }

  void turn() {
    std::vector<pollfd> fds;
    for (const int fd : relay.wait_fds()) fds.push_back({fd, POLLIN, 0});
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(next - Clock::now()).count();
    const int count = ::poll(fds.data(), fds.size(), static_cast<int>(std::clamp<long>(left, 0, 5)));
    const int before = relay.pid();
    if (count > 0) relay.on_readable();
    relay.on_child_event();
    if (relay.pid() != before) next = Clock::now();
    if (Clock::now() >= next) next = relay.on_time(Clock::now());
    for (auto& note : relay.take_notes()) notes.push_back(std::move(note));
  }

  /// Turns until `done()` or the time is over; whether it was done.
  bool until(const std::function<bool()>& done, std::chrono::milliseconds limit = 20s) {
    const auto end = Clock::now() + limit;
    while (Clock::now() < end) {
      turn();
      if (done()) return true;
    }
    return done();
  }
  void run(std::chrono::milliseconds time) {
    until([] { return false; }, time);
  }

  [[nodiscard]] std::string log_path(const std::string& name) const { return logs + "/" + name + ".log"; }
  [[nodiscard]] std::vector<std::string> lines(const std::string& name) const {
    std::ifstream in(log_path(name));
    std::vector<std::string> found;
    for (std::string line; std::getline(in, line);) found.push_back(line);
    return found;
  }
  [[nodiscard]] bool has(const std::string& name, const std::string& text) const {
    for (const auto& line : lines(name))
      if (line.find(text) != std::string::npos) return true;
    return false;
  }
  [[nodiscard]] std::size_t size(const std::string& name) const {
    struct stat status {};
    return ::stat(log_path(name).c_str(), &status) == 0 ? static_cast<std::size_t>(status.st_size) : 0;
  }
};

/// A connected sender, as syslog() is: it waits when the queue is full.
inline UniqueFd connect_to(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return {};
  return fd;
}

inline UniqueFd bind_at(const std::string& path) {
  ::unlink(path.c_str());
  UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  REQUIRE(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  return fd;
}

inline bool send_text(int fd, std::string_view text) {
  return ::send(fd, text.data(), text.size(), MSG_NOSIGNAL) >= 0;
}

/// A child process of the test that ends by itself, or is killed at the end.
struct Child {
  pid_t pid = -1;
  template <class Body>
  explicit Child(Body body) : pid(::fork()) {
    if (pid == 0) ::_exit(body());
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  Child(Child&& other) noexcept : pid(std::exchange(other.pid, -1)) {}
  ~Child() {
    if (pid <= 0) return;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
  bool ended() {
    if (pid > 0 && ::waitpid(pid, nullptr, WNOHANG) == pid) pid = -1;
    return pid <= 0;
  }
};

/// Signals a relay. kill() takes 0, -1 and below for whole groups, or for every process there is: a relay
/// that is just not there must never become that.
inline void signal_relay(int pid, int number) {
  if (pid <= 1) throw std::runtime_error("there is no relay to signal");
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (pidfd) (void)::syscall(SYS_pidfd_send_signal, pidfd.get(), number, nullptr, 0);
}

/// The largest pause between two sends, in microseconds, is left in *longest (shared memory).
inline int send_numbers(const std::string& path, int sender, int count, long* longest = nullptr,
                        int pause_us = 0) {
  const UniqueFd fd = connect_to(path);
  if (!fd) return 1;
  for (int i = 0; i < count; ++i) {
    const std::string text = "<30>Nov 23 23:41:50 load[" + std::to_string(sender) +
                             "]: n=" + std::to_string(i) + " and some more words";
    const auto before = Clock::now();
    if (!send_text(fd.get(), text)) return 2;
    const long took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - before).count();
    if (longest != nullptr) *longest = std::max(*longest, took);
    if (pause_us != 0) ::usleep(static_cast<useconds_t>(pause_us));
  }
  return 0;
}

/// Kills relay after relay. Each gets a time of its own from its fork on; some are dead before they are
/// ready, and every fourth lives until it has written something.
class Killer {
 public:
  Killer(Bench& bench, std::string name, unsigned kills, std::chrono::microseconds longest)
      : bench_(bench), name_(std::move(name)), kills_(kills), longest_(longest) {}

  void step() {
    const int pid = bench_.relay.pid();
    if (pid <= 0 || done()) return;
    if (pid != known_) {
      known_ = pid;
      size_ = bench_.size(name_);
      seed_ = seed_ * 1103515245 + 12345;
      at_ = Clock::now() + longest_ * (seed_ / 65536 % 1000) / 1000;
      killed_ = false;
    }
    const bool wrote = bench_.size(name_) != size_;
    if (killed_ || Clock::now() < at_ || (bench_.relay.restarts() % 4 == 3 && !wrote)) return;
    signal_relay(pid, SIGKILL);
    killed_ = true;
    if (wrote) ++at_work_;
  }
  [[nodiscard]] bool done() const { return bench_.relay.restarts() >= kills_; }
  [[nodiscard]] unsigned at_work() const { return at_work_; }

 private:
  Bench& bench_;
  std::string name_;
  unsigned kills_, seed_ = 7, at_work_ = 0;
  std::chrono::microseconds longest_;
  int known_ = -1;
  bool killed_ = false;
  std::size_t size_ = 0;
  Clock::time_point at_{};
};

/// All that the lines "dropped N messages" tell of.
inline unsigned long dropped_of(const std::vector<std::string>& lines) {
  unsigned long dropped = 0;
  for (const auto& line : lines) {
    const auto at = line.find("jail-relay: dropped ");
    if (at != std::string::npos) dropped += std::strtoul(line.c_str() + at + 20, nullptr, 10);
  }
  return dropped;
}

/// Sends numbers, as sender 0, until `stop` (shared memory) is set; leaves how many in `sent`.
inline int send_numbers_until(const std::string& path, const std::atomic<long>& stop, long& sent) {
  const UniqueFd fd = connect_to(path);
  if (!fd) return 1;
  while (stop.load() == 0) {
    if (!send_text(fd.get(), "<30>Nov 23 23:41:50 load[0]: n=" + std::to_string(sent))) return 2;
    ++sent;
    if (sent % 16 == 0) ::usleep(500);
  }
  return 0;
}

/// For each sender "load[S]: n=I": the numbers in the order of the file.
inline std::vector<std::vector<int>> numbers_of(const std::vector<std::string>& lines, int senders) {
  std::vector<std::vector<int>> found(static_cast<std::size_t>(senders));
  for (const auto& line : lines) {
    int sender = -1, number = -1;
    const auto at = line.find("load[");
    if (at == std::string::npos || std::sscanf(line.c_str() + at, "load[%d]: n=%d", &sender, &number) != 2)
      continue;
    if (sender >= 0 && sender < senders) found[static_cast<std::size_t>(sender)].push_back(number);
  }
  return found;
}

/// Whether each sender's numbers are 0 .. count-1, each once, in order; says what is wrong.
/// In order, and none twice.
inline bool rising(const std::vector<int>& numbers) {
  return std::adjacent_find(numbers.begin(), numbers.end(), std::greater_equal<>()) == numbers.end();
}

inline std::size_t total(const std::vector<std::vector<int>>& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), std::size_t{0},
                         [](std::size_t sum, const auto& of) { return sum + of.size(); });
}

inline std::string sequence_fault(const std::vector<std::string>& lines, int senders, int count) {
  const auto found = numbers_of(lines, senders);
  for (int s = 0; s < senders; ++s) {
    const auto& of = found[static_cast<std::size_t>(s)];
    for (std::size_t i = 0; i < of.size(); ++i)
      if (of[i] != static_cast<int>(i))
        return "sender " + std::to_string(s) + ": " + std::to_string(of[i]) + " stands where " +
               std::to_string(i) + " should";
    if (of.size() != static_cast<std::size_t>(count))
      return "sender " + std::to_string(s) + ": " + std::to_string(of.size());
  }
  return {};
}

inline long rss_kib(int pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(in, line);) {
    long value = 0;
    if (std::sscanf(line.c_str(), "VmRSS: %ld", &value) == 1) return value;
  }
  return -1;
}

inline std::size_t fd_count(int pid) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
    (void)entry;
    ++count;
  }
  return count;
}

}  // namespace log_test
