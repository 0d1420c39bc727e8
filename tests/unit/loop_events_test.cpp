// The event loop: descriptors, timers and signals, on pipes and a real clock.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "catch.h"
#include "supervisor/loop/event_loop.h"

namespace {

using namespace jail;
using namespace jail::loop;
using std::chrono::milliseconds;

EventLoop made() {
  auto loop = EventLoop::make();
  REQUIRE(loop);
  return std::move(*loop);
}

struct Pipe {
  UniqueFd in;
  UniqueFd out;
  Pipe() {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    in.reset(ends[0]);
    out.reset(ends[1]);
  }
  void write() const { REQUIRE(::write(out.get(), "x", 1) == 1); }
  void read() const {
    char byte = 0;
    REQUIRE(::read(in.get(), &byte, 1) == 1);
  }
};

/// A loop that goes wrong must not hang the test.
void run(EventLoop& loop) {
  bool late = false;
  Token guard = loop.at(Clock::now() + std::chrono::seconds(20), [&] {
    late = true;
    loop.stop();
  });
  REQUIRE(loop.run());
  loop.forget(guard);
  REQUIRE_FALSE(late);
}

Token watch(EventLoop& loop, int fd, std::uint32_t events, EventLoop::OnReady callback) {
  const auto token = loop.watch(fd, events, std::move(callback));
  REQUIRE(token);
  return *token;
}

}  // namespace

TEST_CASE("Timers run in the order of their times, those of one time in that of their making") {
  EventLoop loop = made();
  const Time now = Clock::now();
  std::string order;
  loop.at(now + milliseconds(9), [&] {
    order += 'd';
    loop.stop();
  });
  loop.at(now + milliseconds(3), [&] { order += 'b'; });
  loop.at(now + milliseconds(3), [&] { order += 'c'; });
  loop.at(now - std::chrono::hours(1), [&] { order += 'a'; });
  run(loop);
  CHECK(order == "abcd");
  CHECK(Clock::now() - now >= milliseconds(9));
}

TEST_CASE("A timer runs once, and not before its time") {
  EventLoop loop = made();
  int count = 0;
  const Time when = Clock::now() + milliseconds(5);
  bool early = false;
  loop.at(when, [&] {
    ++count;
    early = Clock::now() < when;
  });
  loop.at(when + milliseconds(5), [&] { loop.stop(); });
  run(loop);
  CHECK(count == 1);
  CHECK_FALSE(early);
}

TEST_CASE("A timer that arms itself for now does not keep descriptors from their turn") {
  EventLoop loop = made();
  const Pipe pipe;
  int timers = 0;
  std::function<void()> again = [&] {
    ++timers;
    loop.at(Clock::now() - milliseconds(1), again);
  };
  again();
  watch(loop, pipe.in.get(), EPOLLIN, [&](std::uint32_t) { loop.stop(); });
  pipe.write();
  run(loop);
  CHECK(timers < 10);
}

TEST_CASE("A timer that is forgotten does not run, also by one that runs in the same round") {
  EventLoop loop = made();
  const Time now = Clock::now();
  bool ran = false;
  Token second = 0;
  loop.at(now, [&] { loop.forget(second); });
  second = loop.at(now, [&] { ran = true; });
  Token third = loop.at(now, [&] { ran = true; });
  loop.forget(third);
  CHECK(third == 0);
  loop.at(now, [&] { loop.stop(); });
  run(loop);
  CHECK_FALSE(ran);
  CHECK(second == 0);
}

TEST_CASE("Forgetting what is gone, or nothing, is fine; a token names one thing for ever") {
  EventLoop loop = made();
  Token none = 0;
  loop.forget(none);
  Token timer = loop.at(Clock::now(), [&] { loop.stop(); });
  const Token stale = timer;
  run(loop);
  const Pipe pipe;
  const Token fresh = watch(loop, pipe.in.get(), EPOLLIN, [](std::uint32_t) {});
  CHECK(fresh != stale);
  loop.forget(timer);
  CHECK(timer == 0);
  Token wild = 999'999;
  loop.forget(wild);
  CHECK(wild == 0);
}

TEST_CASE("A callback may forget itself, and is whole until it returns") {
  EventLoop loop = made();
  const Pipe pipe;
  Token token = 0;
  int count = 0;
  const std::string captured(100, 'x');  // on the heap: what a sanitizer would see freed
  token = watch(loop, pipe.in.get(), EPOLLIN, [&, captured](std::uint32_t) {
    loop.forget(token);
    CHECK(captured == std::string(100, 'x'));
    ++count;
  });
  Token self = 0;
  self = loop.at(Clock::now(), [&, captured] {
    loop.forget(self);
    CHECK(captured.size() == 100);
    ++count;
  });
  loop.at(Clock::now() + milliseconds(5), [&] { loop.stop(); });
  pipe.write();
  run(loop);
  CHECK(count == 2);
}

TEST_CASE("A watch that another callback of the same round forgets is not called") {
  EventLoop loop = made();
  const Pipe one;
  const Pipe two;
  one.write();
  two.write();
  Token first = 0;
  Token second = 0;
  int count = 0;
  first = watch(loop, one.in.get(), EPOLLIN, [&](std::uint32_t) {
    ++count;
    loop.forget(second);
    loop.forget(first);
  });
  second = watch(loop, two.in.get(), EPOLLIN, [&](std::uint32_t) {
    ++count;
    loop.forget(first);
    loop.forget(second);
  });
  loop.at(Clock::now() + milliseconds(5), [&] { loop.stop(); });
  run(loop);
  CHECK(count == 1);
}

TEST_CASE("A number that is used again for another descriptor belongs to its new watch") {
  EventLoop loop = made();
  Pipe one;
  one.write();
  Token old = 0;
  bool wrong = false;
  bool right = false;
  std::unique_ptr<Pipe> other;
  old = watch(loop, one.in.get(), EPOLLIN, [&](std::uint32_t) {
    if (other) wrong = true;
    loop.forget(old);
    one = Pipe();
    other = std::make_unique<Pipe>();
    other->write();
    watch(loop, other->in.get(), EPOLLIN, [&](std::uint32_t) {
      right = true;
      loop.stop();
    });
  });
  run(loop);
  CHECK(right);
  CHECK_FALSE(wrong);
}

TEST_CASE("A watch tells the end of the other side, and of what cannot be waited for") {
  EventLoop loop = made();
  Pipe pipe;
  std::uint32_t seen = 0;
  Token token = 0;
  token = watch(loop, pipe.in.get(), EPOLLIN, [&](std::uint32_t events) {
    seen = events;
    loop.forget(token);
    loop.stop();
  });
  pipe.out.reset();
  run(loop);
  CHECK((seen & EPOLLHUP) != 0);
  const auto bad = loop.watch(-1, EPOLLIN, [](std::uint32_t) {});
  REQUIRE_FALSE(bad);
  CHECK(bad.error().message == "cannot wait for descriptor -1: Bad file descriptor");
}

TEST_CASE("Signals come as calls, each once") {
  EventLoop loop = made();
  sigset_t before;
  ::sigemptyset(&before);
  REQUIRE(::sigprocmask(SIG_BLOCK, nullptr, &before) == 0);
  std::vector<int> seen;
  REQUIRE(loop.on_signals({SIGUSR1, SIGUSR2}, [&](int number) {
    seen.push_back(number);
    if (seen.size() == 2) loop.stop();
  }));
  REQUIRE(::raise(SIGUSR2) == 0);
  REQUIRE(::raise(SIGUSR1) == 0);
  REQUIRE(::raise(SIGUSR1) == 0);  // pending already
  run(loop);
  CHECK(seen == std::vector<int>{SIGUSR1, SIGUSR2});
  REQUIRE(::sigprocmask(SIG_SETMASK, &before, nullptr) == 0);
}

TEST_CASE("What is to be done before waiting is done before each wait, and can stop the loop") {
  EventLoop loop = made();
  int rounds = 0;
  loop.before_wait([&] {
    if (++rounds == 3) loop.stop();
  });
  loop.at(Clock::now(), [] {});
  loop.at(Clock::now() + milliseconds(1), [] {});
  run(loop);
  CHECK(rounds == 3);
}

TEST_CASE("A loop that was stopped does not wait") {
  EventLoop loop = made();
  loop.stop();
  REQUIRE(loop.run());
}
