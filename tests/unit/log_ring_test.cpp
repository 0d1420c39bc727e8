#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "catch.h"
#include "supervisor/log/intake.h"
#include "supervisor/log/ring.h"
#include "supervisor/log/sink_file.h"

using namespace jail;
using namespace jail::log;

namespace {

struct Fixture {
  UniqueFd fd = std::move(*Ring::make());
  Ring ring = std::move(*Ring::attach(fd.get()));
  Region region = *ring.region("named");

  void append(std::string_view bytes, bool syslog = false) const {
    Record record;
    record.bytes = bytes;
    region.append(record, syslog, [](State&) {});
  }
  [[nodiscard]] std::vector<std::string> all() const {
    std::vector<std::string> found;
    Position at = region.state().cursor[0];
    for (Record record; region.next(at, record);) found.emplace_back(record.bytes);
    return found;
  }
  [[nodiscard]] std::uint64_t dropped() const { return region.state().dropped[0]; }
};

struct Pair {
  UniqueFd near, far;
  Pair() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends) == 0);
    near.reset(ends[0]);
    far.reset(ends[1]);
    const int on = 1;
    REQUIRE(::setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
  }
  void send(std::string_view bytes) const {
    REQUIRE(::send(far.get(), bytes.data(), bytes.size(), 0) == ssize_t(bytes.size()));
  }
};

}  // namespace

TEST_CASE("records come out in order, across both lanes and the wrap") {
  Fixture f;
  std::vector<std::string> sent;
  std::uint64_t number = 0;
  for (int round = 0; round < 400; ++round) {
    for (int i = 0; i < 7; ++i) {
      sent.push_back((number % 3 == 0 ? "<27>" : "<30>") + std::to_string(number) +
                     std::string(number % 500, 'x'));
      f.append(sent.back());
      ++number;
    }
    CHECK(f.all() == sent);
    Position at = f.region.state().cursor[0];
    Record record;
    while (f.region.next(at, record)) {
    }
    f.region.commit([&](State& state) { state.cursor[0] = at; });
    sent.clear();
  }
  CHECK(f.dropped() == 0);
}

TEST_CASE("a full lane drops its oldest, counts them, and leaves warnings alone") {
  Fixture f;
  f.append("<27>an error");
  for (int i = 0; i < 20000; ++i) f.append("<31>" + std::to_string(i));
  const auto left = f.all();
  CHECK(left.front() == "<27>an error");
  CHECK(left.back() == "<31>19999");
  CHECK(left.size() - 1 + f.dropped() == 20000);
  CHECK(left[1] == "<31>" + std::to_string(f.dropped()));
}

TEST_CASE("a sink that lags has drops of its own") {
  Fixture f;
  for (int i = 0; i < 20000; ++i) {
    f.append("<30>x", true);
    f.region.commit([](State& state) { state.cursor[0].lane = state.tail; });
  }
  CHECK(f.region.state().dropped[0] == 0);
  CHECK(f.region.state().dropped[1] > 0);
}

TEST_CASE("the next relay finds what the last received and did not append") {
  Fixture f;
  Pair pair;
  pair.send("<30>one");
  pair.send("");
  pair.send("<30>" + std::string(20000, 'y'));
  // As receive_datagrams() leaves it when it dies right after the system call.
  const State before = f.region.state();
  (void)receive_datagrams(f.ring, f.region, pair.near.get(), false);
  const auto expected = f.all();
  CHECK(expected.size() == 3);
  for (std::uint64_t taken = 0; taken <= 3; ++taken) {
    f.region.commit([&](State& state) {
      const std::uint64_t batch = state.batch;
      state = before;
      state.batch = taken == 0 ? before.batch : batch;
      state.taken = taken;
    });
    f.ring.inbox().kind = Inbox::datagrams;
    recover_inbox(f.ring);
    CHECK(f.all().size() == 3 - taken);
    CHECK(f.ring.inbox().kind == Inbox::idle);
    recover_inbox(f.ring);  // and no second time
    CHECK(f.all().size() == 3 - taken);
  }
}

TEST_CASE("lines of a pipe: joined, cut, and taken over") {
  Fixture f;
  int ends[2];
  REQUIRE(::pipe2(ends, O_NONBLOCK) == 0);
  const UniqueFd out(ends[0]), in(ends[1]);
  auto write = [&](std::string_view text) {
    REQUIRE(::write(in.get(), text.data(), text.size()) == ssize_t(text.size()));
  };
  auto read = [&] { return receive_stream(f.ring, f.region, out.get(), Source::out, false).records; };
  write("one\ntw");
  CHECK(read() == 1);
  write("o\n\nthree");
  CHECK(read() == 2);
  CHECK(f.all() == std::vector<std::string>{"one", "two", ""});
  flush_partial(f.region, Source::out, false, now_us(), 60'000'000);
  CHECK(f.all().size() == 3);
  flush_partial(f.region, Source::out, false, now_us(), 0);
  CHECK(f.all().back() == "three");
  // A line of 1 MiB: bounded, marked.
  const std::string piece(32 * 1024, 'z');
  for (int i = 0; i < 32; ++i) {
    write(piece);
    CHECK(read() == 0);
  }
  write("\n");
  CHECK(read() == 1);
  Position at = f.region.state().cursor[0];
  Record record;
  while (f.region.next(at, record)) {
  }
  CHECK(record.bytes.size() == record_limit);
  CHECK(record.truncated == 1024 * 1024 - record_limit);
  // Killed right after read().
  f.ring.inbox().region = f.region.number();
  f.ring.inbox().batch++;
  std::memcpy(f.ring.inbox().stream.data(), "found\npart", 10);
  f.ring.inbox().kind = Inbox::out;
  recover_inbox(f.ring);
  CHECK(f.all().back() == "found");
  CHECK(f.region.state().partial[0].length == 4);
  CHECK(f.ring.inbox().stream[0] == '\0');
  CHECK(read() == 0);
}

TEST_CASE("a broken ring is used with care") {
  Fixture f;
  f.append("<30>x");
  f.region.commit([](State& state) { state.tail[1] = 3; });
  CHECK(f.region.repair());
  CHECK(f.dropped() == 1);
  CHECK(f.all().empty());
  f.append("<30>y");
  std::memset(f.region.memory().chatter.data(), 0xEE, 64);  // an impossible entry
  CHECK(f.all().empty());
  CHECK_FALSE(f.region.repair());
  f.ring.inbox().kind = 77;
  f.ring.inbox().region = 99999;
  recover_inbox(f.ring);
  f.ring.outgoing().count = 5000;
  recover_outgoing(f.ring);
  CHECK(f.ring.outgoing().count == 0);
}

TEST_CASE("an outbox is finished where it stopped, told by the file") {
  char path[] = "/tmp/jail-log-test-XXXXXX";
  const UniqueFd keep(::mkostemp(path, O_APPEND));
  REQUIRE(keep.valid());
  Fixture f;
  for (int i = 0; i < 10; ++i) f.append("<30>" + std::to_string(i));
  {
    FileSink sink;
    sink.open(UniqueFd(::dup(keep.get())), f.region);
    CHECK(sink.flush(f.region) == FileSink::Status::done);
  }
  const off_t size = ::lseek(keep.get(), 0, SEEK_END);
  // The relay died after a part of the write, before it could note so: the next writes the rest and no more.
  for (const off_t part : {off_t{0}, off_t{1}, size / 2, size - 1, size}) {
    REQUIRE(::ftruncate(keep.get(), part) == 0);
    f.region.commit([](State& state) { state.out.done = 0; });
    FileSink sink;
    sink.open(UniqueFd(::dup(keep.get())), f.region);
    CHECK(f.region.state().out.done == part);
    CHECK(sink.flush(f.region) == FileSink::Status::done);
    CHECK(::lseek(keep.get(), 0, SEEK_END) == size);
  }
  ::unlink(path);
  f.append("<30>late");
  FileSink sink;
  sink.open(UniqueFd(::dup(keep.get())), f.region);
  CHECK(sink.flush(f.region) == FileSink::Status::removed);
}
