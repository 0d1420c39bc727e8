// The relay under load and under attack. Root; sockets and files in a directory below /tmp.
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include <iostream>

#include "log_harness.h"

using namespace log_test;

namespace {

// Shared with forked senders.
struct Shared {
  long* longest =
      static_cast<long*>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ~Shared() { ::munmap(longest, 4096); }
};

bool all_ended(std::vector<Child>& children) {
  bool ended = true;
  for (auto& child : children) ended = child.ended() && ended;
  return ended;
}

}  // namespace

TEST_CASE("100000 datagrams of four senders arrive in order, stamped with the kernel's pid") {
  Bench bench;
  const Channel channel = bench.channel("named");
  const auto begin = Clock::now();
  std::vector<Child> senders;
  for (int s = 0; s < 4; ++s)
    senders.emplace_back([&, s] { return send_numbers(bench.dir.path + "/named", s, 25000); });
  std::vector<std::string> stamps;
  for (const auto& child : senders)
    stamps.push_back(" named[" + std::to_string(child.pid) + "] daemon.info load[");
  REQUIRE(bench.until([&] { return all_ended(senders); }));
  std::size_t before = 1, now = 0;
  REQUIRE(bench.until([&] {
    return std::exchange(before, std::exchange(now, bench.size("named"))) == now &&
           bench.lines("named").size() >= 100000;
  }));
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  const auto lines = bench.lines("named");
  CHECK(sequence_fault(lines, 4, 25000).empty());
  std::size_t wrong = 0;
  for (const auto& line : lines)
    if (std::none_of(stamps.begin(), stamps.end(),
                     [&](const auto& s) { return line.find(s) != std::string::npos; }))
      ++wrong;
  CHECK(wrong == 0);
  std::cout << "100,000 messages in " << seconds << " s, " << 100000 / seconds << " a second; relay's VmRSS "
            << rss_kib(bench.relay.pid()) << " KiB\n";
}

TEST_CASE("a sender in another pid namespace is stamped with its pid in ours") {
  Bench bench;
  const Channel channel = bench.channel("named");
  int report[2];
  REQUIRE(::pipe(report) == 0);
  Child outer([&] {
    if (::unshare(CLONE_NEWPID) != 0) return 1;
    const pid_t inner = ::fork();
    if (inner == 0) {
      const UniqueFd fd = connect_to(bench.dir.path + "/named");
      ::_exit(::getpid() == 1 && send_text(fd.get(), "<30>named[1]: inside") ? 0 : 1);
    }
    if (::write(report[1], &inner, sizeof inner) != sizeof inner) return 1;
    return ::waitpid(inner, nullptr, 0) == inner ? 0 : 1;
  });
  pid_t inner = 0;
  REQUIRE(::read(report[0], &inner, sizeof inner) == sizeof inner);
  CHECK(bench.until([&] {
    return bench.has("named", " named[" + std::to_string(inner) + "] daemon.info named[1]: inside");
  }));
}

TEST_CASE("SIGKILL of the relay, 20 times under load: nothing lost, nothing doubled") {
  Bench bench;
  const Channel channel = bench.channel("named");
  constexpr std::size_t count = 10000;
  const Shared shared;  // sender 0 sends until all kills are done, so that each relay has something to write
  auto* stop = reinterpret_cast<std::atomic<long>*>(shared.longest);
  long* sent = shared.longest + 1;
  std::vector<Child> senders;
  senders.emplace_back([&] { return send_numbers_until(bench.dir.path + "/named", *stop, *sent); });
  for (int s = 1; s < 3; ++s)
    senders.emplace_back([&, s] { return send_numbers(bench.dir.path + "/named", s, count, nullptr, 20); });
  senders.emplace_back([&] {  // and a writer of its standard output
    for (std::size_t i = 0; i < count; ++i)
      if (::dprintf(channel.stdout_write.get(), "load[3]: n=%zu\n", i) <= 0) return 1;
    return 0;
  });
  Killer killer(bench, "named", 20, 60ms);
  REQUIRE(bench.until(
      [&] {
        killer.step();
        stop->store(killer.done() ? 1 : 0);
        return all_ended(senders);
      },
      60s));
  // On a machine that is too busy to start a relay within two seconds jaild drains, and tells how much.
  const std::size_t all = 3 * count + static_cast<std::size_t>(*sent);
  auto arrived = [&] {
    return total(numbers_of(bench.lines("named"), 4)) + dropped_of(bench.lines("named"));
  };
  CHECK(bench.until([&] { return arrived() >= all; }));
  CHECK(arrived() == all);
  for (const auto& numbers : numbers_of(bench.lines("named"), 4)) CHECK(rising(numbers));
  std::cout << all << " messages past 20 kills, " << dropped_of(bench.lines("named"))
            << " of them dropped and told\n";
  CHECK(killer.at_work() >= 5);
}

TEST_CASE("killed as often as it can be while it works: nothing lost, nothing doubled") {
  const TempDir dir;
  const std::string host_path = dir.path + "/host";
  const auto host = make_channel(host_path, 65534);  // with a queue that outlasts our turns
  REQUIRE(host.has_value());
  Bench bench(host_path);
  const Channel channel = bench.channel("named");
  const Shared shared;  // the sender sends until all kills are done, then leaves how many it sent
  auto* stop = reinterpret_cast<std::atomic<long>*>(shared.longest);
  long* sent = shared.longest + 1;
  std::vector<Child> senders;
  senders.emplace_back([&] { return send_numbers_until(bench.dir.path + "/named", *stop, *sent); });
  std::vector<std::string> received;
  std::array<char, 16384> buffer;
  Killer killer(bench, "named", 40, 20ms);
  auto step = [&] {
    for (ssize_t got; (got = ::recv(host->syslog.get(), buffer.data(), buffer.size(), 0)) > 0;)
      received.emplace_back(buffer.data(), static_cast<std::size_t>(got));
    killer.step();
    stop->store(killer.done() ? 1 : 0);
    return all_ended(senders);
  };
  REQUIRE(bench.until(step, 40s));
  const auto count = static_cast<std::size_t>(*sent);
  // The host's syslog may be slower than the jail: what it could not have, it is told of.
  auto arrived = [&] {
    (void)step();
    return numbers_of(received, 1)[0].size() + dropped_of(received) >= count &&
           bench.lines("named").size() >= count;
  };
  CHECK(bench.until(arrived));
  CHECK(sequence_fault(bench.lines("named"), 1, static_cast<int>(count)) == "");
  const auto numbers = numbers_of(received, 1)[0];
  CHECK(numbers.size() + dropped_of(received) == count);
  CHECK(rising(numbers));
  CHECK(numbers.size() > count / 2);
  CHECK(killer.at_work() >= 10);
  std::cout << count << " messages past 40 kills, " << killer.at_work() << " of them in mid-work; "
            << dropped_of(received) << " dropped for the host's syslog\n";
}

TEST_CASE("a stopped relay is replaced within a second, and no sender waits long") {
  Bench bench;
  const Channel channel = bench.channel("named");
  const Shared shared;
  bench.run(100ms);
  SECTION("seen by SIGCHLD") {}
  std::vector<Child> senders;
  senders.emplace_back([&] { return send_numbers(bench.dir.path + "/named", 0, 3000, shared.longest, 300); });
  bench.run(100ms);
  const int before = bench.relay.pid();
  signal_relay(before, SIGSTOP);
  const auto stopped = Clock::now();
  REQUIRE(bench.until([&] { return bench.relay.pid() > 0 && bench.relay.pid() != before; }, 2s));
  const auto took = Clock::now() - stopped;
  CHECK(took < 1s);
  REQUIRE(bench.until([&] { return all_ended(senders) && bench.lines("named").size() >= 3000; }));
  CHECK(sequence_fault(bench.lines("named"), 1, 3000) == "");
  CHECK(*shared.longest < 500000);
  std::cout << "stopped relay replaced after " << std::chrono::duration<double, std::milli>(took).count()
            << " ms; the longest send took " << *shared.longest << " us\n";
}

TEST_CASE("a relay that does not answer is replaced, without any SIGCHLD") {
  Bench bench;
  const Channel channel = bench.channel("named");
  bench.run(700ms);
  const int before = bench.relay.pid();
  signal_relay(before, SIGSTOP);
  const auto stopped = Clock::now();
  while (bench.relay.pid() == before && Clock::now() - stopped < 3s) {
    ::usleep(1000);
    bench.relay.on_readable();
    if (Clock::now() >= bench.next) bench.next = bench.relay.on_time(Clock::now());
  }
  CHECK(bench.relay.pid() != before);
  CHECK(Clock::now() - stopped < 1200ms);
}

TEST_CASE("hostile bytes are one line each, and memory stays bounded") {
  using namespace std::string_view_literals;
  Bench bench;
  const Channel channel = bench.channel("named");
  const UniqueFd fd = connect_to(bench.dir.path + "/named");
  REQUIRE(send_text(fd.get(), "<30>a\n<0>kernel: fake\x1b[2J\0\xff end1"sv));
  REQUIRE(send_text(fd.get(), ""));
  REQUIRE(send_text(fd.get(), "<30>" + std::string(64 * 1024, '\x01')));
  REQUIRE(send_text(fd.get(), "<30>end2\n\0"sv));
  Child writer([&] {  // a line of 64 MiB
    const std::string piece(1 << 20, 'L');
    for (int i = 0; i < 64; ++i)
      for (std::size_t at = 0; at < piece.size();) {
        const ssize_t wrote = ::write(channel.stdout_write.get(), piece.data() + at, piece.size() - at);
        if (wrote <= 0) return 1;
        at += static_cast<std::size_t>(wrote);
      }
    return ::write(channel.stdout_write.get(), "\nend3\n", 6) == 6 ? 0 : 1;
  });
  REQUIRE(bench.until([&] { return bench.has("named", "end3"); }));
  const auto lines = bench.lines("named");
  REQUIRE(lines.size() == 6);
  CHECK(bench.has("named", "daemon.info: a\\x0a<0>kernel: fake\\x1b[2J\\x00\\xff end1"));
  CHECK(bench.has("named", "[truncated " + std::to_string(64 * 1024 + 4 - 8192) + "]"));
  CHECK(bench.has("named", "[truncated " + std::to_string(64 * 1024 * 1024 - 8192) + "]"));
  CHECK(bench.has("named", "daemon.info: end2"));
  for (const auto& line : lines) CHECK(line.size() < 40000);
  CHECK(rss_kib(bench.relay.pid()) < 16 * 1024);
}

TEST_CASE("descriptors that a hostile sender attaches do not stay in the relay") {
  Bench bench;
  const Channel channel = bench.channel("named");
  const UniqueFd fd = connect_to(bench.dir.path + "/named");
  REQUIRE(send_text(fd.get(), "<30>first"));
  REQUIRE(bench.until([&] { return bench.has("named", "first"); }));
  const std::size_t before = fd_count(bench.relay.pid());
  char text[] = "<30>with descriptors";
  for (int round = 0; round < 200; ++round) {
    iovec vector{text, sizeof text - 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 10)]{};
    msghdr header{};
    header.msg_iov = &vector;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int) * 10);
    for (int i = 0; i < 10; ++i)
      std::memcpy(CMSG_DATA(rights) + sizeof(int) * static_cast<std::size_t>(i), &text, 0);
    (void)::sendmsg(fd.get(), &header, MSG_NOSIGNAL);  // Linux 6.16 and later refuse it here: SO_PASSRIGHTS
  }
  REQUIRE(send_text(fd.get(), "<30>last"));
  REQUIRE(bench.until([&] { return bench.has("named", "last"); }));
  CHECK(fd_count(bench.relay.pid()) == before);
}

TEST_CASE("a file that is removed or moved is made anew") {
  Bench bench;
  const Channel channel = bench.channel("named");
  const UniqueFd fd = connect_to(bench.dir.path + "/named");
  REQUIRE(send_text(fd.get(), "<30>one"));
  REQUIRE(bench.until([&] { return bench.has("named", "one"); }));
  SECTION("removed") {
    ::unlink(bench.log_path("named").c_str());
    REQUIRE(send_text(fd.get(), "<30>two"));
    CHECK(bench.until([&] { return bench.has("named", "two"); }));
    CHECK(bench.lines("named").size() == 1);
  }
  SECTION("moved") {
    std::filesystem::rename(bench.log_path("named"), bench.log_path("named") + ".1");
    bench.run(600ms);
    REQUIRE(send_text(fd.get(), "<30>two"));
    CHECK(bench.until([&] { return bench.has("named", "two"); }));
  }
  SECTION("moved, and made by another") {
    std::filesystem::rename(bench.log_path("named"), bench.log_path("named") + ".1");
    std::ofstream(bench.log_path("named")).close();
    bench.run(50ms);
    REQUIRE(send_text(fd.get(), "<30>two"));
    CHECK(bench.until([&] { return bench.has("named", "two"); }));
  }
  SECTION("truncated in place") {
    std::filesystem::resize_file(bench.log_path("named"), 0);
    REQUIRE(send_text(fd.get(), "<30>two"));
    CHECK(bench.until([&] { return bench.has("named", "two"); }));
    CHECK(bench.lines("named").front().front() == '2');  // no hole
  }
  SECTION("the whole directory") {
    std::filesystem::remove_all(bench.logs);
    std::filesystem::create_directory(bench.logs);
    REQUIRE(send_text(fd.get(), "<30>two"));
    CHECK(bench.until([&] { return bench.has("named", "two"); }));
  }
}

TEST_CASE("a log file that is a link is not followed") {
  Bench bench;
  const std::string victim = bench.dir.path + "/victim";
  std::ofstream(victim) << "mine\n";
  REQUIRE(::symlink(victim.c_str(), bench.log_path("named").c_str()) == 0);
  const Channel channel = bench.channel("named");
  const UniqueFd fd = connect_to(bench.dir.path + "/named");
  REQUIRE(send_text(fd.get(), "<30>one"));
  bench.run(200ms);
  CHECK(std::filesystem::file_size(victim) == 5);
  CHECK_FALSE(bench.notes.empty());
  ::unlink(bench.log_path("named").c_str());
  CHECK(bench.until([&] { return bench.has("named", "one"); }));
}

TEST_CASE("a full disk: drains on, counts, recovers and tells") {
  Bench bench;
  REQUIRE(::unshare(CLONE_NEWNS) == 0);
  REQUIRE(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
  const std::string small = bench.logs;
  REQUIRE(::mount("tmpfs", small.c_str(), "tmpfs", 0, "size=1m") == 0);
  struct Unmount {
    std::string path;
    ~Unmount() { ::umount2(path.c_str(), MNT_DETACH); }
  } unmount{small};
  const Channel channel = bench.channel("named");
  { std::ofstream(small + "/ballast") << std::string(900 * 1024, 'b'); }
  const Shared shared;
  constexpr int count = 30000;
  std::vector<Child> senders;
  senders.emplace_back([&] { return send_numbers(bench.dir.path + "/named", 0, count, shared.longest); });
  REQUIRE(bench.until([&] { return all_ended(senders); }));
  bench.run(200ms);
  CHECK(bench.lines("named").size() < 2000);
  CHECK(*shared.longest < 1000000);
  const std::string huge = std::filesystem::exists(small + "/ballast") ? small + "/ballast" : "";
  std::filesystem::remove(huge);
  REQUIRE(bench.until([&] { return bench.has("named", "syslog.warning jail-relay: dropped "); }));
  bench.run(300ms);
  const auto lines = bench.lines("named");
  const unsigned long dropped = dropped_of(lines);
  const auto numbers = numbers_of(lines, 1)[0];
  CHECK(numbers.size() + dropped == count);
  CHECK(rising(numbers));
  CHECK(bench.has("named", "No space left on device"));
  std::cout << "full disk: " << numbers.size() << " written, " << dropped
            << " dropped and told; the longest send took " << *shared.longest << " us\n";
}

TEST_CASE("the host's syslog may be absent, appear, and restart") {
  const TempDir dir;
  const std::string path = dir.path + "/host";
  Bench bench(path);
  const Channel channel = bench.channel("named");
  const UniqueFd fd = connect_to(bench.dir.path + "/named");
  REQUIRE(send_text(fd.get(), "<30>Nov 23 23:41:50 named[2]: n0"));
  REQUIRE(bench.until([&] { return bench.has("named", "n0"); }));
  std::array<char, 16384> buffer;
  for (int round = 1; round <= 5; ++round) {
    const UniqueFd host = bind_at(path);
    std::vector<std::string> got;
    const std::string text = "n" + std::to_string(round);
    auto receive = [&] {
      const ssize_t count = ::recv(host.get(), buffer.data(), buffer.size(), 0);
      if (count > 0) got.emplace_back(buffer.data(), static_cast<std::size_t>(count));
      return got.size() == 2;
    };
    REQUIRE(send_text(fd.get(),
                      "<30>Nov 23 23:41:50 named[2]: " + text));  // the one sent while it was away comes too
    REQUIRE(bench.until(receive, 3s));
    const std::string pid = std::to_string(::getpid());
    CHECK(got[0].ends_with(" jail/named[" + pid + "]: named[2]: " + (round == 1 ? "n0" : "away")));
    CHECK(got[1].ends_with(" jail/named[" + pid + "]: named[2]: " + text));
    CHECK(got[0].starts_with("<30>"));
    ::unlink(path.c_str());
    const_cast<UniqueFd&>(host).reset();
    REQUIRE(send_text(fd.get(), "<30>named[2]: away"));
    bench.run(100ms);
  }
}

TEST_CASE("a noisy jail does not starve another") {
  Bench bench;
  const Channel a = bench.channel("noisy");
  const Channel b = bench.channel("quiet");
  std::vector<Child> noise;
  for (int s = 0; s < 2; ++s)
    noise.emplace_back([&, s] { return send_numbers(bench.dir.path + "/noisy", s, 1000000); });
  const Shared shared;
  std::vector<Child> quiet;
  quiet.emplace_back([&] { return send_numbers(bench.dir.path + "/quiet", 0, 50, shared.longest, 10000); });
  REQUIRE(bench.until([&] { return all_ended(quiet); }));
  CHECK(bench.until([&] { return bench.lines("quiet").size() == 50; }, 1s));
  CHECK(sequence_fault(bench.lines("quiet"), 1, 50) == "");
  CHECK(*shared.longest < 100000);
}

TEST_CASE("the socket: mode, queue, stale files; the host's setting stays") {
  const TempDir dir;
  const std::string path = dir.path + "/" + std::string(90, 'd');
  std::filesystem::create_directory(path);
  const std::string socket = path + "/log";  // longer than sun_path
  auto setting = [] {
    std::ifstream in("/proc/sys/net/unix/max_dgram_qlen");
    std::string text;
    in >> text;
    return text;
  };
  const std::string before = setting();
  const mode_t mask = ::umask(077);
  { REQUIRE(make_channel(socket, 65534).has_value()); }
  auto channel = make_channel(socket, 65534);
  CHECK(::umask(mask) == 077);
  REQUIRE(channel.has_value());
  CHECK(setting() == before);
  struct stat status {};
  REQUIRE(::stat(socket.c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0666);
  REQUIRE(::fstat(channel->stdout_write.get(), &status) == 0);
  CHECK(status.st_uid == 65534);
  CHECK((::fcntl(channel->stdout_read.get(), F_GETFL) & O_NONBLOCK) != 0);
  CHECK((::fcntl(channel->stdout_write.get(), F_GETFL) & O_NONBLOCK) == 0);
  UniqueFd sender(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const int directory = ::open(path.c_str(), O_PATH);
  const std::string around = "/proc/self/fd/" + std::to_string(directory) + "/log";
  std::memcpy(address.sun_path, around.data(), around.size());
  REQUIRE(::connect(sender.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  int sent = 0;
  const int buffer = 64 << 20;
  ::setsockopt(sender.get(), SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer);
  while (::send(sender.get(), "x", 1, MSG_DONTWAIT) == 1) ++sent;
  CHECK(sent == 4097);
  ::close(directory);
  std::filesystem::remove(socket);
  { std::ofstream(socket) << "not a socket"; }
  CHECK_FALSE(make_channel(socket, 65534).has_value());
  CHECK(std::filesystem::file_size(socket) == 12);
}

TEST_CASE("the relay is confined") {
  Bench bench;
  const Channel channel = bench.channel("named");
  const UniqueFd fd = connect_to(bench.dir.path + "/named");
  REQUIRE(send_text(fd.get(), "<30>one"));
  REQUIRE(bench.until([&] { return bench.has("named", "one"); }));
  const std::string proc = "/proc/" + std::to_string(bench.relay.pid());
  std::ifstream in(proc + "/status");
  std::string status((std::istreambuf_iterator<char>(in)), {});
  CHECK(status.find("Uid:\t65534\t65534\t65534\t65534") != std::string::npos);
  CHECK(status.find("CapPrm:\t0000000000000000") != std::string::npos);
  CHECK(status.find("CapBnd:\t0000000000000000") != std::string::npos);
  CHECK(status.find("NoNewPrivs:\t1") != std::string::npos);
  CHECK(std::filesystem::is_empty(proc + "/root"));
  for (const char* space : {"mnt", "net", "ipc", "uts"})
    CHECK(std::filesystem::read_symlink(proc + "/ns/" + space) !=
          std::filesystem::read_symlink(std::string("/proc/self/ns/") + space));
  CHECK(std::filesystem::read_symlink(proc + "/ns/pid") ==
        std::filesystem::read_symlink("/proc/self/ns/pid"));
#if !defined(__SANITIZE_ADDRESS__)
  CHECK(status.find("Seccomp:\t2") != std::string::npos);
#endif
}

TEST_CASE("jaild's end: the next one takes the ring, even from a relay that is stopped") {
  Bench first;
  const Channel channel = first.channel("named");
  first.run(100ms);
  const UniqueFd fd = connect_to(first.dir.path + "/named");
  const int stopped = first.relay.pid();
  signal_relay(stopped, SIGSTOP);
  REQUIRE(send_text(fd.get(), "<30>waiting"));
  Bench second({}, UniqueFd(::fcntl(first.relay.ring().get(), F_DUPFD_CLOEXEC, 0)));
  REQUIRE(second.relay.add("named", channel).has_value());
  CHECK(second.until([&] { return second.has("named", "waiting"); }, 3s));
}

TEST_CASE("without any relay, jaild drains and counts") {
  TempDir dir;
  const UniqueFd nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  Bench bench;
  Relay::Options options;
  options.program_fd = nothing.get();
  options.log_dir = bench.dir.path + "/other";
  options.host_syslog = "";
  auto broken = Relay::start(std::move(options));
  REQUIRE(broken.has_value());
  bench.relay = std::move(*broken);
  auto channel = make_channel(bench.dir.path + "/named", 65534);
  REQUIRE(channel.has_value());
  REQUIRE(bench.relay.add("named", *channel).has_value());
  std::vector<Child> senders;
  senders.emplace_back([&] { return send_numbers(bench.dir.path + "/named", 0, 20000); });
  CHECK(bench.until([&] { return all_ended(senders); }, 10s));
  CHECK_FALSE(bench.notes.empty());
}

TEST_CASE("remove writes what is left") {
  Bench bench;
  const Channel channel = bench.channel("named");
  bench.run(100ms);
  const UniqueFd fd = connect_to(bench.dir.path + "/named");
  for (int i = 0; i < 3000; ++i) REQUIRE(send_text(fd.get(), "<30>load[0]: n=" + std::to_string(i)));
  ::dprintf(channel.stderr_write.get(), "no newline");
  bench.relay.remove("named");
  CHECK(bench.until([&] { return bench.lines("named").size() >= 3001; }, 3s));
  CHECK(bench.has("named", "stderr: no newline"));
  const Channel again = bench.channel("named");
  const UniqueFd next = connect_to(bench.dir.path + "/named");
  REQUIRE(send_text(next.get(), "<30>again"));
  CHECK(bench.until([&] { return bench.has("named", "again"); }, 3s));
}
