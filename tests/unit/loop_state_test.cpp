// What jaild remembers: a state file that is damaged anywhere gives a text that was saved, or none; never
// another.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "catch.h"
#include "supervisor/base/io.h"
#include "supervisor/loop/state.h"

namespace {

using namespace jail;
using namespace jail::loop;

UniqueFd copy_of(int fd) {
  return UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

StateFile opened(UniqueFd fd = UniqueFd()) {
  auto file = StateFile::open(std::move(fd));
  REQUIRE(file);
  return std::move(*file);
}

/// What the next jaild would read.
Result<std::optional<std::string>> read_again(int fd) {
  JAIL_TRY(file, StateFile::open(copy_of(fd)));
  return file.load();
}

std::string bytes_of(int fd) {
  struct stat status {};
  REQUIRE(::fstat(fd, &status) == 0);
  std::string bytes(static_cast<std::size_t>(status.st_size), '\0');
  REQUIRE(::pread(fd, bytes.data(), bytes.size(), 0) == status.st_size);
  return bytes;
}

UniqueFd file_with(std::string_view bytes) {
  UniqueFd fd(::memfd_create("damaged", MFD_CLOEXEC));
  REQUIRE(fd);
  REQUIRE(write_all(fd.get(), bytes, "damaged"));
  return fd;
}

ServiceState state_sample() {
  ServiceState state;
  service::Snapshot& machine = state.machine;
  machine.state = service::State::backoff;
  machine.after = service::After::stop;
  machine.process = machine.notified = machine.checked = machine.exit_known = machine.killed = true;
  machine.exit_status = -9;
  machine.pid = 4242;
  machine.since = service::Time(std::chrono::nanoseconds(1));
  machine.started = service::Time(std::chrono::nanoseconds(-7));
  machine.deadline = service::Time(std::chrono::nanoseconds(9223372036854775807));
  machine.restarts = 18446744073709551615U;
  machine.failures = 4294967295U;
  machine.recent = {service::Time(std::chrono::nanoseconds(5)), service::Time(std::chrono::nanoseconds(6))};
  machine.reason = "exit status 1";
  machine.status_text = "odd \"\\\n\t\x01 \xc3\xa4";
  state.generation = 12;
  state.init_pid = 4241;
  state.pid_namespace = "pid:[4026531836]";
  return state;
}

std::string states(const std::string& services) {
  return R"({"services":[)" + services + R"(],"version":1})";
}

}  // namespace

TEST_CASE("A new state file holds nothing; what is saved is loaded, also by the next one") {
  StateFile file = opened();
  REQUIRE(file.load());
  CHECK_FALSE(*file.load());
  REQUIRE(read_again(file.fd()));
  CHECK_FALSE(*read_again(file.fd()));
  for (const std::string& text :
       {std::string("one"), std::string(), std::string(100'000, 'x'), std::string("two"),
        std::string("a\0b", 3), std::string(5000, 'y'), std::string("three")}) {
    REQUIRE(file.save(text));
    REQUIRE(file.load());
    CHECK(*file.load() == text);
    REQUIRE(read_again(file.fd()));
    CHECK(*read_again(file.fd()) == text);
  }
}

TEST_CASE("Saves by one jaild after the other stay the newest, and the file does not grow without end") {
  const StateFile first = opened();
  for (int life = 0; life < 200; ++life) {
    StateFile file = opened(copy_of(first.fd()));
    const std::string text(static_cast<std::size_t>(life * 7919 % 3000), static_cast<char>('a' + life % 26));
    REQUIRE(file.save(text));
    REQUIRE(read_again(first.fd()));
    REQUIRE(*read_again(first.fd()) == text);
  }
  CHECK(bytes_of(first.fd()).size() < 4096 + 4 * 3000);
}

TEST_CASE("A jaild that is killed within its very first save has saved nothing") {
  // The text is there, the slot that names it is not yet.
  const UniqueFd fd = file_with(std::string(4096, '\0') + "half a te");
  const auto text = read_again(fd.get());
  INFO((text ? std::string() : text.error().message));
  REQUIRE(text);
  CHECK_FALSE(*text);
  StateFile file = opened(copy_of(fd.get()));
  REQUIRE(file.save("whole"));
  CHECK(*read_again(fd.get()) == "whole");
}

TEST_CASE("A save that is cut off at any byte leaves the old text or the new one") {
  for (const auto& [old_text, new_text] : {std::pair<std::string, std::string>("the old text", "new"),
                                           {"old", "the new and longer text"},
                                           {"", "x"}}) {
    StateFile file = opened();
    REQUIRE(file.save("before"));
    REQUIRE(file.save(old_text));
    const std::string before = bytes_of(file.fd());
    REQUIRE(file.save(new_text));
    std::string after = bytes_of(file.fd());
    std::string now = before;
    now.resize(std::max(now.size(), after.size()));
    after.resize(now.size());
    // The order of the writes: the text first, behind the header, then the slot.
    std::vector<std::size_t> order;
    for (std::size_t at = 4096; at < after.size(); ++at) order.push_back(at);
    for (std::size_t at = 0; at < 4096; ++at) order.push_back(at);
    for (const std::size_t at : order) {
      if (now[at] == after[at]) continue;
      REQUIRE(*read_again(file_with(now).get()) == old_text);
      now[at] = after[at];
    }
    REQUIRE(*read_again(file_with(now).get()) == new_text);
  }
}

TEST_CASE("Whatever byte is flipped, the text is one that was saved, or there is an error") {
  StateFile file = opened();
  REQUIRE(file.save("the older text"));
  REQUIRE(file.save("the newer text"));
  const std::string bytes = bytes_of(file.fd());
  std::size_t newest = 0;
  std::size_t older = 0;
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    for (const char flip : {'\x01', '\x80', '\xff'}) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ flip);
      const auto text = read_again(file_with(damaged).get());
      INFO("byte " << at);
      REQUIRE(text);  // one of the two is whole
      REQUIRE(*text);
      REQUIRE((**text == "the newer text" || **text == "the older text"));
      ++(**text == "the newer text" ? newest : older);
    }
  }
  CHECK(newest > 3 * 4000);       // nearly all of the header is unused
  CHECK(older == 3 * (40 + 14));  // its slot, its text
}

TEST_CASE("A file cut at any length gives a text that was saved, or an error") {
  StateFile file = opened();
  REQUIRE(file.save("the older text"));
  REQUIRE(file.save("the newer and longer text"));
  const std::string bytes = bytes_of(file.fd());
  for (std::size_t size = 1; size < bytes.size(); ++size) {
    const auto text = read_again(file_with(bytes.substr(0, size)).get());
    INFO("cut at " << size);
    if (!text) {
      REQUIRE(text.error().exit == Exit::io);
      continue;
    }
    REQUIRE(*text);
    REQUIRE(**text == "the older text");
  }
}

TEST_CASE("Both damaged is an error, and the next save starts anew") {
  StateFile file = opened();
  REQUIRE(file.save("one"));
  REQUIRE(file.save("two"));
  std::string bytes = bytes_of(file.fd());
  for (std::size_t at = 4096; at < bytes.size(); ++at) bytes[at] = '#';
  const UniqueFd fd = file_with(bytes);
  const auto text = read_again(fd.get());
  REQUIRE_FALSE(text);
  CHECK(text.error().exit == Exit::io);
  CHECK(text.error().message == "the state that an earlier jaild left is damaged");
  StateFile again = opened(copy_of(fd.get()));
  REQUIRE(again.save("three"));
  CHECK(*read_again(fd.get()) == "three");
}

TEST_CASE("A text that no load would take is not saved, and the last one stays") {
  StateFile file = opened();
  REQUIRE(file.save("good"));
  constexpr std::size_t size = (256U << 20U) + 1;
  void* pages = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  REQUIRE(pages != MAP_FAILED);
  const auto saved = file.save({static_cast<const char*>(pages), size});
  ::munmap(pages, size);
  REQUIRE_FALSE(saved);
  CHECK(*file.load() == "good");
  CHECK(*read_again(file.fd()) == "good");
}

TEST_CASE("States come back as they went") {
  const ServiceState sample = state_sample();
  const auto read = states_from_json(states(to_json("named", sample) + "," + to_json("smtpd@a", {})));
  INFO((read ? std::string() : read.error().message));
  REQUIRE(read);
  REQUIRE(read->size() == 2);
  CHECK(read->at("named") == sample);
  CHECK(read->at("smtpd@a") == ServiceState());
  CHECK(states_from_json(states(""))->empty());
}

TEST_CASE("Words that a daemon chose and that are no text do not cost the state") {
  ServiceState state;
  state.machine.status_text = "\xff\xfe";
  const auto read = states_from_json(states(to_json("named", state)));
  REQUIRE(read);
  CHECK(read->at("named").machine.status_text == "\xef\xbf\xbd\xef\xbf\xbd");
}

TEST_CASE("A state that cannot be read is an error, whole") {
  const std::string good = to_json("named", state_sample());
  const auto without = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const std::size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    return states(text.replace(at, from.size(), to));
  };
  const std::string bad[] = {"",
                             "{}",
                             "[]",
                             "null",
                             R"({"services":[]})",
                             R"({"services":[],"version":2})",
                             R"({"services":[],"version":"1"})",
                             R"({"services":7,"version":1})",
                             states("7"),
                             states("{}"),
                             states(good + ",{}"),
                             without("\"name\":\"named\"", "\"name\":\"../x\""),
                             without("\"state\":\"", "\"state\":\"x"),
                             without("\"after\":", "\"after\":1"),
                             without("\"pid\":4242", "\"pid\":\"4242\""),
                             without("\"pid\":4242,", ""),
                             without("\"recent\":[5", "\"recent\":[\"x\""),
                             without("\"reason\":\"exit status 1\"", "\"reason\":null"),
                             std::string(300'000, '[')};
  for (const std::string& text : bad) {
    const auto read = states_from_json(text);
    INFO(text.substr(0, 500));
    CHECK_FALSE(read);
    if (!read) CHECK(read.error().exit == Exit::config);
  }
}

TEST_CASE("A state cut at any byte is an error") {
  const std::string text = states(to_json("named", state_sample()));
  for (std::size_t size = 0; size < text.size(); ++size)
    REQUIRE_FALSE(states_from_json(text.substr(0, size)));
}
