// Building, on a file system of the test's own, while somebody works against it.
#include <fcntl.h>
#include <sys/syscall.h>

#include <atomic>
#include <random>
#include <thread>

#include "jailer/tree/remove_tree.h"
#include "jailer/tree/store_index.h"
#include "jailer/tree/tree_index.h"
#include "tree_house.h"

namespace {

using namespace jail;
using namespace jail::test;

const std::string big(50'000, 'b');

/// All that a stranger could have changed of `path` and of what is below it, the times of changes included.
std::map<std::string, std::string> snapshot(const fs::path& path) {
  std::map<std::string, std::string> found;
  const auto add = [&](const fs::path& each) {
    struct stat status {};
    REQUIRE(::lstat(each.c_str(), &status) == 0);
    found[each.string()] = fmt::format("{:o} {} {} {} {} {}.{} {}", status.st_mode, status.st_uid,
                                       status.st_gid, status.st_nlink, status.st_size, status.st_ctim.tv_sec,
                                       status.st_ctim.tv_nsec, S_ISREG(status.st_mode) ? bytes_of(each) : "");
  };
  add(path);
  for (const auto& entry : fs::recursive_directory_iterator(path)) add(entry.path());
  return found;
}

/// What differs, for the message of a test that fails.
std::string differing(const std::map<std::string, std::string>& before,
                      const std::map<std::string, std::string>& now) {
  std::string text;
  for (const auto& [path, what] : now)
    if (const auto at = before.find(path); at == before.end() || at->second != what)
      text += path + ": " + what + "\n";
  for (const auto& [path, what] : before)
    if (!now.contains(path)) text += path + ": gone\n";
  return text;
}

/// Swaps directories that builds work in for a symlink to the canary, and back, as fast as it can. Not the
/// state directory's own name: a link of root's is root's word there.
class Swapper {
 public:
  Swapper(fs::path top, fs::path canary)
      : top_(std::move(top)), link_(top_ / "swap"), canary_(std::move(canary)) {
    thread_ = std::thread([this] { work(); });
  }
  ~Swapper() { stop(); }
  Swapper(const Swapper&) = delete;
  Swapper& operator=(const Swapper&) = delete;

  void stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] unsigned long swaps() const { return swaps_; }

 private:
  static bool exchange(const fs::path& a, const fs::path& b) {
    return ::syscall(SYS_renameat2, AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), 2 /* RENAME_EXCHANGE */) == 0;
  }

  void work() {
    const std::string jail = "state/jails/j";
    const std::string made = jail + "/gen/.new-" + std::to_string(::getpid());
    const std::string targets[] = {made,
                                   made + "/tree",
                                   made + "/tree/a",
                                   made + "/tree/a/b",
                                   made + "/tree/etc",
                                   "state/store/objects",
                                   "state/store/tmp",
                                   "state/store",
                                   "state/jails",
                                   jail,
                                   jail + "/gen",
                                   "state/volumes",
                                   made + "/tree/a",
                                   made + "/tree/a/b",
                                   made + "/tree"};
    std::mt19937 random(9);
    fs::create_symlink(canary_, link_);
    while (!stop_) {
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 600));
      const fs::path target = top_ / targets[random() % std::size(targets)];
      if (!exchange(target, link_)) continue;
      ++swaps_;
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 50));
      if (exchange(target, link_)) continue;
      // What it was in is gone or has another name: what was taken out goes, and a new link is made.
      std::error_code ignored;
      fs::remove_all(link_, ignored);
      fs::create_symlink(canary_, link_, ignored);
    }
  }

  fs::path top_;
  fs::path link_;
  fs::path canary_;
  std::atomic<bool> stop_ = false;
  std::atomic<unsigned long> swaps_ = 0;
  std::thread thread_;
};

std::size_t open_descriptors() {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator()));
}

}  // namespace

TEST_CASE("Somebody who swaps directories for links while builds run never gets a byte outside") {
  const House house;
  house.source("big", big);
  house.source("small", "small");
  Plan plan = house.plan("j", "0");
  plan.volumes.push_back({"data", "/data", 7, 8, 0750});
  REQUIRE(house.build(plan));
  const fs::path canary = house.top / "canary";
  for (const char* file :
       {"a/big", "a/b/small", "b/small", "etc/text", "tree/a/x", "gen/x", "j/x", "jails/x", "store/x",
        "objects/x", "tmp/x", "volumes/data/x", "jail.lock", "text", "big", "current"})
    write_bytes(canary / file, "canary");
  const auto before = snapshot(canary);

  int built = 0;
  int refused = 0;
  Swapper swapper(house.top, canary);
  for (int round = 1; round <= 1000; ++round) {
    house.source("big", big + std::to_string(round));
    Plan next = house.plan("j", std::to_string(round));
    next.volumes = plan.volumes;
    const auto result = house.build(next);
    ++(result ? built : refused);
    if (!result) REQUIRE_FALSE(result.error().message.empty());
    if (round % 20 == 0) REQUIRE(differing(before, snapshot(canary)) == "");
  }
  swapper.stop();
  WARN(swapper.swaps() << " swaps, " << built << " builds done, " << refused << " refused");
  CHECK(differing(before, snapshot(canary)) == "");
  CHECK(swapper.swaps() > 200);
  CHECK(refused > 0);
  CHECK(built > 0);

  // And nothing is left of it: what the swaps tore out of place is put right by building.
  fs::remove_all(house.top / "state");
  REQUIRE(house.build(plan));
  CHECK(house.differences("j").empty());
}

TEST_CASE(
    "Somebody who swaps directories of the sources for links that lead out never gets a byte of outside in") {
  const House house;
  house.source("a/b/big", big);
  house.source("a/b/small", "inside");
  for (const char* out : {"outside/b", "outside"}) {
    write_bytes(house.top / out / "big", std::string(big.size(), 'O'));
    write_bytes(house.top / out / "small", "OUTSID");
  }
  Plan plan = house.plan("j", "0");
  plan.entries.at("/a/big").source = "/a/b/big";
  plan.entries.at("/a/b/big").source = "/a/b/big";
  plan.entries.at("/a/b/small").source = "/a/b/small";
  REQUIRE(house.build(plan));

  std::atomic<bool> stop = false;
  std::atomic<unsigned long> swaps = 0;
  std::thread swapper([&] {
    // Absolute and relative, of the directory and of the one above it.
    const std::pair<const char*, fs::path> out[] = {{"a", "../outside"},
                                                    {"a/b", "../../outside/b"},
                                                    {"a", house.top / "outside"},
                                                    {"a/b", house.top / "outside/b"}};
    std::mt19937 random(10);
    const fs::path link = house.top / "root/link";
    for (std::size_t i = 0; !stop; ++i) {
      const auto& [name, target] = out[i % std::size(out)];
      const fs::path directory = house.top / "root" / name;
      fs::create_symlink(target, link);
      for (int twice = 0; twice < 2; ++twice) {
        REQUIRE(::syscall(SYS_renameat2, AT_FDCWD, directory.c_str(), AT_FDCWD, link.c_str(), 2) == 0);
        std::this_thread::sleep_for(std::chrono::microseconds(random() % (twice == 0 ? 200 : 4000)));
      }
      fs::remove(link);
      ++swaps;
    }
  });
  int built = 0;
  int refused = 0;
  std::string seen;
  for (int round = 1; round <= 1000; ++round) {
    // Each has other bytes to read, and not from what is remembered.
    if (round % 4 == 0) fs::remove_all(house.top / "state/store/index");
    plan.entries.at("/etc/text").content = std::to_string(round);
    const auto result = house.build(plan);
    ++(result ? built : refused);
    if (!result) continue;
    const fs::path tree = house.top / "state/jails/j/current/tree";
    for (const char* file : {"a/big", "a/b/big", "a/b/small"})
      if (bytes_of(tree / file).find('O') != std::string::npos) seen += file;
  }
  stop = true;
  swapper.join();
  WARN(swaps << " swaps, " << built << " builds done, " << refused << " refused");
  CHECK(seen == "");
  CHECK(swaps > 200);
  CHECK(built > 0);
  CHECK(refused > 0);
}

TEST_CASE("A disk that decays under the stamps is found by verify and mended by the next build") {
  const House house;
  house.source("big", big);
  house.source("small", "small");
  const Plan plan = house.plan("j", "text");
  REQUIRE(house.build(plan));
  const fs::path store = house.top / "state/store";
  const fs::path object = fs::directory_iterator(store / "objects")->path();
  {
    std::fstream file(object, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(4711);
    file.put('#');
  }
  // To the indexes it is as it was.
  struct stat status {};
  REQUIRE(::stat(object.c_str(), &status) == 0);
  auto index = tree::StoreIndex::from_bytes(bytes_of(store / "index"));
  REQUIRE(index);
  const Stamp old = index->objects.at(object.filename());
  index->objects.at(object.filename()) = stamp_of(status);
  write_bytes(store / "index", index->to_bytes());
  const fs::path tree_index = house.top / "state/jails/j/gen/000001/index.json";
  auto stamps = tree::tree_index_from_json(bytes_of(tree_index), "index");
  REQUIRE(stamps);
  for (Stamp& stamp : stamps->entries)
    if (stamp.inode == old.inode) stamp = stamp_of(status);
  write_bytes(tree_index, to_json(*stamps));

  CHECK_FALSE(house.build(plan)->changed);  // the stamps say so: only reading tells
  const auto differences = house.differences("j");
  REQUIRE(differences.size() == 2);
  CHECK(differences[0].path == "/a/b/big");
  CHECK(differences[0].what == "content");
  CHECK(differences[1].path == "/a/big");
  const auto mended = house.build(plan);
  REQUIRE(mended);
  CHECK(mended->changed);
  CHECK(mended->mended.size() == 2);
  CHECK(house.differences("j").empty());
  // The generation before shares the damaged inode still: nobody gets back to it unawares.
  const auto back = rollback(house.instance, "j", 1);
  REQUIRE_FALSE(back);
  CHECK(back.error().message.find("content differs") != std::string::npos);
  CHECK(bytes_of(object) == big);
  CHECK_FALSE(house.build(plan)->changed);
}

TEST_CASE("A source that is written to all the while is in no tree that is not as its lock") {
  const House house;
  house.source("big", big);
  house.source("small", std::string(100, 'x'));
  REQUIRE(house.build(house.plan("j", "0")));
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    const UniqueFd small(::open((house.top / "root/small").c_str(), O_WRONLY | O_CLOEXEC));
    const UniqueFd large(::open((house.top / "root/big").c_str(), O_WRONLY | O_CLOEXEC));
    for (unsigned turn = 0; !stop; ++turn) {
      const std::string bytes(100, static_cast<char>('a' + turn % 26));
      (void)!::pwrite(small.get(), bytes.data(), bytes.size(), 0);
      if (turn % 64 == 0) (void)!::pwrite(large.get(), bytes.data(), bytes.size(), 20'000);
      if (turn % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  });
  int built = 0;
  for (int round = 1; round <= 60; ++round) {
    const auto result = house.build(house.plan("j", std::to_string(round)));
    if (result) {
      ++built;
    } else {
      CHECK(result.error().exit == Exit::io);
      CHECK(result.error().message.find("changed") != std::string::npos);
      CHECK_FALSE(result.error().hint.empty());
    }
    if (!house.differences("j").empty()) FAIL("round " << round);
  }
  stop = true;
  writer.join();
  WARN(built << " of 60 builds done");
  REQUIRE(house.build(house.plan("j", "end")));
  CHECK(house.differences("j").empty());
}

TEST_CASE("A source that shrinks, grows or is no file any more is an error that says so") {
  const House house;
  house.source("big", big);
  house.source("small", "small");
  const fs::path source = house.top / "root/big";
  const Plan plan = house.plan("j", "text");
  fs::remove(source);
  CHECK(house.build(plan).error().exit == Exit::no_input);
  REQUIRE(::mkfifo(source.c_str(), 0644) == 0);
  CHECK(house.build(plan).error().message.find("not a regular file") != std::string::npos);
  fs::remove(source);
  fs::create_symlink("small", source);
  CHECK(house.build(plan).error().message.find("not a regular file") != std::string::npos);
  CHECK(fs::is_empty(house.top / "state/jails"));
}

TEST_CASE("A file with holes keeps them, and is read as what it shows") {
  const House house;
  house.source("small", "small");
  house.source("big", "");
  fs::resize_file(house.top / "root/big", 8U << 20U);
  {
    std::fstream file(house.top / "root/big", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(3U << 20U);
    file.put('x');
  }
  REQUIRE(house.build(house.plan("j", "text")));
  CHECK(house.differences("j").empty());
  struct stat status {};
  REQUIRE(::stat((house.top / "state/jails/j/current/tree/a/big").c_str(), &status) == 0);
  CHECK(status.st_size == 8 << 20);
  CHECK(status.st_blocks * 512 < 1 << 20);
}

TEST_CASE("Jails that share a volume are built at once without a quarrel") {
  const House house;
  house.source("big", big);
  house.source("small", "small");
  for (int round = 0; round < 10; ++round) {
    std::atomic<int> built = 0;
    std::vector<std::thread> threads;
    for (int number = 0; number < 4; ++number)
      threads.emplace_back([&, number] {
        Plan plan = house.plan("j" + std::to_string(number), std::to_string(round));
        plan.volumes = {{"shared", "/data", 7, 8, 0750}, {"v" + std::to_string(number), "/own", 7, 8, 0700}};
        if (house.build(plan)) ++built;
      });
    for (std::thread& thread : threads) thread.join();
    REQUIRE(built == 4);
    std::vector<std::string> volumes;
    for (const auto& entry : fs::directory_iterator(house.instance.volumes()))
      volumes.push_back(entry.path().filename().string());
    CHECK(volumes.size() == 5);
    fs::remove_all(house.instance.volumes());
  }
  for (int number = 0; number < 4; ++number) CHECK(house.differences("j" + std::to_string(number)).empty());
}

TEST_CASE("Builds that are done, refused or not needed leave no descriptor open") {
  const House house;
  house.source("big", big);
  house.source("small", "small");
  REQUIRE(house.build(house.plan("j", "first")));
  const std::size_t before = open_descriptors();
  for (int round = 0; round < 5; ++round) {
    REQUIRE(house.build(house.plan("j", std::to_string(round))));
    REQUIRE(house.build(house.plan("j", std::to_string(round))));
    (void)house.differences("j");
    Plan bad = house.plan("j", "x");
    bad.entries.at("/a/b/small").source = "/none";
    REQUIRE_FALSE(house.build(bad));
    bad = house.plan("j", "x");
    bad.volumes = {{"j", "/data", 7, 8, 0750}};
    fs::create_directories(house.instance.volumes() + "/j");
    fs::permissions(house.instance.volumes(), fs::perms::owner_all);
    REQUIRE_FALSE(house.build(bad));
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("A tree is removed to the last, however deep it is and whatever it holds") {
  const House house;
  const UniqueFd top(::open(house.top.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  fs::create_directory(house.top / "outside");
  write_bytes(house.top / "outside/file", "stays");
  REQUIRE(::mkdirat(top.get(), "deep", 0700) == 0);
  UniqueFd here(::openat(top.get(), "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (int level = 0; level < 3000; ++level) {
    REQUIRE(::mkdirat(here.get(), "!", 0000) == 0);
    if (level % 500 == 0) {
      REQUIRE(::symlinkat((house.top / "outside").c_str(), here.get(), "link") == 0);
      REQUIRE(::mknodat(here.get(), "fifo", S_IFIFO | 0600, 0) == 0);
    }
    here.reset(::openat(here.get(), "!", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(here);
  }
  here.reset();
  for (const char* ours : {".deep-0/file", ".deep-1/file", ".deep-2/file"})
    write_bytes(house.top / "deep" / ours, "in the way");
  const auto removed = tree::remove_tree(top.get(), "deep", "deep");
  INFO((removed ? std::string() : removed.error().message));
  REQUIRE(removed);
  CHECK_FALSE(fs::exists(house.top / "deep"));
  CHECK(bytes_of(house.top / "outside/file") == "stays");
  REQUIRE(tree::remove_tree(top.get(), "deep", "deep"));
}

TEST_CASE("What is mounted in a tree is not removed with it, be it of the same file system") {
  const House house;
  const UniqueFd top(::open(house.top.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  write_bytes(house.top / "outside/file", "stays");
  for (const char* inner : {"tree", "tree/a/b"}) {
    fs::create_directories(house.top / "tree/a/b");
    const fs::path place = house.top / inner;
    REQUIRE(::mount((house.top / "outside").c_str(), place.c_str(), nullptr, MS_BIND, nullptr) == 0);
    const auto removed = tree::remove_tree(top.get(), "tree", "/x/tree");
    REQUIRE_FALSE(removed);
    CHECK(removed.error().exit == Exit::busy);
    CHECK(removed.error().message ==
          fmt::format("'/x/tree': cannot remove: something is mounted in it, on '{}'",
                      place.filename().string()));
    CHECK(bytes_of(house.top / "outside/file") == "stays");
    REQUIRE(::umount(place.c_str()) == 0);
    REQUIRE(tree::remove_tree(top.get(), "tree", "/x/tree"));
  }
}
