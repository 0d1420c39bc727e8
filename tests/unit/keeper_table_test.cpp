#include <fcntl.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "catch.h"
#include "supervisor/keeper/table.h"

using namespace jail::keeper;

namespace {

int new_fd() {
  return ::open("/dev/null", O_RDONLY | O_CLOEXEC);
}
bool is_open(int fd) {
  return ::fcntl(fd, F_GETFD) >= 0;
}

template <std::size_t Capacity>
std::string names(const Table<Capacity>& table) {
  std::string all;
  for (std::size_t i = 0; i < table.size(); ++i) all += std::string(table[i].name) + " ";
  return all;
}

template <std::size_t Capacity>
std::vector<int> drain(Ring<Capacity>& ring) {
  std::vector<int> pids;
  for (; !ring.empty(); ring.pop()) pids.push_back(ring.front().pid);
  return pids;
}

}  // namespace

TEST_CASE("the table keeps the order of the first stores, and closes what it gives up") {
  Table<8> table;
  const int a = new_fd();
  const int b = new_fd();
  const int c = new_fd();
  CHECK(table.store("a", a));
  CHECK(table.store("b", b));
  CHECK(table.store("c", c));
  const int newer = new_fd();
  CHECK(table.store("b", newer));
  CHECK(names(table) == "a b c ");
  CHECK(table[1].fd == newer);
  CHECK_FALSE(is_open(b));
  CHECK(table.drop("a") == 0);
  CHECK_FALSE(is_open(a));
  CHECK(names(table) == "b c ");
  CHECK(table.drop("a") == table.size());
  CHECK(table.drop("c") == 1);
  CHECK(table.drop("b") == 0);
  CHECK(table.size() == 0);
  CHECK_FALSE(is_open(newer));
}

TEST_CASE("a full table closes what it cannot hold, and still replaces what it has") {
  Table<2> table;
  CHECK(table.store("a", new_fd()));
  CHECK(table.store("b", new_fd()));
  const int more = new_fd();
  CHECK_FALSE(table.store("c", more));
  CHECK_FALSE(is_open(more));
  CHECK(table.store("a", new_fd()));
  CHECK(names(table) == "a b ");
  table.drop("a");
  table.drop("b");
}

TEST_CASE("a name that is too long is cut, never written past its place") {
  Table<2> table;
  CHECK(table.store(std::string(500, 'n').c_str(), new_fd()));
  CHECK(std::string(table[0].name) == std::string(name_size - 1, 'n'));
  table.drop(table[0].name);
}

TEST_CASE("the ring forgets the oldest") {
  Ring<3> ring;
  CHECK(ring.push({1, 0}));
  CHECK(ring.push({2, 0}));
  CHECK(ring.push({3, 0}));
  CHECK_FALSE(ring.push({4, 0}));
  CHECK(drain(ring) == std::vector<int>{2, 3, 4});
  CHECK(ring.push({5, 0}));
  CHECK(drain(ring) == std::vector<int>{5});
}

namespace {

std::vector<std::int64_t> delays(unsigned count, std::int64_t lived, bool killed, Backoff backoff = {}) {
  std::vector<std::int64_t> all;
  for (unsigned i = 0; i < count; ++i) all.push_back(backoff.after_death(lived, killed));
  return all;
}

}  // namespace

TEST_CASE("a jaild that keeps dying waits longer and longer") {
  CHECK(delays(10, 5, false) ==
        std::vector<std::int64_t>{0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000});
  CHECK(delays(200, 5, false).back() == 5000);  // and no shift wraps
}

TEST_CASE("one that lived for a second begins anew") {
  Backoff backoff;
  for (int i = 0; i < 5; ++i) backoff.after_death(5, false);
  CHECK(backoff.after_death(1000, false) == 0);
  CHECK(backoff.after_death(5, false) == 0);
  CHECK(backoff.after_death(5, false) == 100);
}

TEST_CASE("a killed one is back at once, unless it is killed again and again") {
  const auto all = delays(Backoff::free_kills + 3, 5, true);
  for (unsigned i = 0; i < Backoff::free_kills; ++i) CHECK(all[i] == 0);
  CHECK(all.back() == 200);
}
