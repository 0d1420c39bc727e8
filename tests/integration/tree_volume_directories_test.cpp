// The directories that a volume starts with: exact owners and modes, made once, never touched again, and
// nothing of root's given to a daemon that swaps names while they are made.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "catch.h"
#include "jailer/tree/volumes.h"
#include "tree_house.h"

using namespace jail;
namespace fs = std::filesystem;

namespace {

struct Home {
  fs::path top;
  Instance instance;
  std::vector<PlannedVolume> volumes;

  explicit Home(const std::string& below = "/tmp") {
    std::string name = below + "/jail-volumes-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    top = name;
    instance.state = top / "state";
    fs::create_directories(instance.state);
    PlannedVolume queue{"queue", "/var/spool/queue", 4001, 4002, 0755};
    queue.directories = {
        {"active", 4003, 0, 0700}, {"maildrop", 4003, 4004, 01730}, {"maildrop/new", 0, 0, 0755}};
    volumes = {queue};
  }
  ~Home() {
    std::error_code ignored;
    fs::remove_all(top, ignored);
  }
  Home(const Home&) = delete;
  Home& operator=(const Home&) = delete;

  [[nodiscard]] fs::path volume() const { return fs::path(instance.volumes()) / "queue"; }
  [[nodiscard]] Result<bool> ask(bool make) const { return tree::check_volumes(instance, volumes, make); }
  /// Whether all is there.
  bool check(bool make) const {
    const auto there = ask(make);
    INFO((there ? "" : there.error().message));
    REQUIRE(there);
    return *there;
  }
};

struct stat status_of(const fs::path& path) {
  struct stat status {};
  INFO(path);
  REQUIRE(::lstat(path.c_str(), &status) == 0);
  return status;
}

void check_status(const fs::path& path, unsigned uid, unsigned gid, unsigned mode) {
  const struct stat status = status_of(path);
  INFO(path);
  CHECK(S_ISDIR(status.st_mode));
  CHECK(status.st_uid == uid);
  CHECK(status.st_gid == gid);
  CHECK((status.st_mode & 07777U) == mode);
}

auto entries(const fs::path& path) {
  return std::distance(fs::directory_iterator(path), {});
}

}  // namespace

TEST_CASE("a build makes a volume's directories with their owners and modes", "[volumes]") {
  const Home home;
  CHECK_FALSE(home.check(false));
  CHECK_FALSE(fs::exists(home.volume()));
  home.check(true);
  check_status(home.volume(), 4001, 4002, 0755);
  check_status(home.volume() / "active", 4003, 0, 0700);
  check_status(home.volume() / "maildrop", 4003, 4004, 01730);
  check_status(home.volume() / "maildrop/new", 0, 0, 0755);
  CHECK(entries(home.volume()) == 2);
  CHECK(entries(home.volume() / "maildrop") == 1);
  CHECK(home.check(false));
}

TEST_CASE("a directory that is there keeps its owner, its mode and what it holds", "[volumes]") {
  const Home home;
  home.check(true);
  std::ofstream(home.volume() / "active/message") << "mail";
  REQUIRE(::chown((home.volume() / "active").c_str(), 7, 8) == 0);
  REQUIRE(::chmod((home.volume() / "active").c_str(), 0711) == 0);
  const auto before = status_of(home.volume() / "active").st_ino;
  CHECK(home.check(false));
  CHECK(home.check(true));
  check_status(home.volume() / "active", 7, 8, 0711);
  CHECK(status_of(home.volume() / "active").st_ino == before);
  CHECK(fs::file_size(home.volume() / "active/message") == 4);
}

TEST_CASE("a directory that was lost, or that a newer manifest asks for, is made in the old volume",
          "[volumes]") {
  Home home;
  home.check(true);
  std::ofstream(home.volume() / "maildrop/message") << "mail";
  fs::remove(home.volume() / "active");
  home.volumes.front().directories.push_back({"saved", 4005, 4005, 0750});
  CHECK_FALSE(home.check(false));
  home.check(true);
  check_status(home.volume() / "active", 4003, 0, 0700);
  check_status(home.volume() / "saved", 4005, 4005, 0750);
  CHECK(fs::exists(home.volume() / "maildrop/message"));
}

TEST_CASE("what a killed build left under a temporary name is no obstacle", "[volumes]") {
  const Home home;
  home.check(true);
  fs::remove(home.volume() / "active");
  fs::create_directory(home.volume() / ".new-active");
  home.check(true);
  check_status(home.volume() / "active", 4003, 0, 0700);
  CHECK_FALSE(fs::exists(home.volume() / ".new-active"));
}

TEST_CASE("something in the way is told, and stays", "[volumes]") {
  const Home home;
  home.check(true);
  const fs::path outside = home.top / "outside";
  fs::create_directory(outside);
  const auto place = [&] { return home.volume() / "maildrop"; };
  fs::remove_all(place());
  SECTION("a file") {
    std::ofstream(place()) << "x";
  }
  SECTION("a link to a directory") {
    fs::create_directory_symlink(outside, place());
  }
  SECTION("a link to where nothing is") {
    fs::create_directory_symlink(home.top / "not-there", place());
  }
  SECTION("a link that stays inside") {
    fs::create_directory_symlink("active", place());
  }
  const auto was = status_of(place());
  for (const bool make : {false, true}) {
    const auto answer = home.ask(make);
    REQUIRE_FALSE(answer);
    CHECK(answer.error().exit == Exit::config);
    INFO(answer.error().message);
    CHECK(answer.error().message.find("queue/maildrop") != std::string::npos);
    CHECK(answer.error().message.find("must have a directory here") != std::string::npos);
  }
  CHECK(status_of(place()).st_ino == was.st_ino);
  CHECK(entries(outside) == 0);
  CHECK_FALSE(fs::exists(home.top / "not-there"));
  CHECK(entries(home.volume() / "active") == 0);
}

TEST_CASE("what a hostile owner puts under the temporary name is not given to it", "[volumes]") {
  const Home home;
  home.check(true);
  const fs::path victim = home.top / "victim";
  const fs::path temporary = home.volume() / ".new-active";
  fs::remove(home.volume() / "active");
  fs::create_directory(victim);
  SECTION("a link to a directory of root") {
    fs::create_directory_symlink(victim, temporary);
    home.check(true);
    check_status(home.volume() / "active", 4003, 0, 0700);
  }
  SECTION("a second name of a file of root") {
    std::ofstream(victim / "file") << "root's";
    fs::create_hard_link(victim / "file", temporary);
    home.check(true);
    CHECK(status_of(victim / "file").st_uid == 0);
  }
  SECTION("a directory of root with something in it") {
    fs::create_directories(temporary / "secret");
    REQUIRE_FALSE(home.ask(true));
    CHECK(status_of(temporary).st_uid == 0);
    CHECK(status_of(temporary / "secret").st_uid == 0);
  }
  check_status(victim, 0, 0, 0755);
}

TEST_CASE("a hostile owner that swaps the new directory in the meantime gets nothing of root's",
          "[volumes]") {
  const test::House memory;  // a rename on a tmpfs takes no longer than what it must overtake
  const Home home(memory.top.string());
  home.check(true);
  const fs::path victim = home.top / "victim";
  const fs::path temporary = home.volume() / ".new-active";
  fs::create_directory(victim);
  fs::permissions(victim, fs::perms::owner_all);  // such as mkdir makes: only that it is a link gives it away
  std::atomic<bool> over = false;
  const auto attack = [&](const fs::path& aside) {
    fs::create_directory(aside);
    fs::create_directory_symlink(victim, aside / "link");
    while (!over) {
      // Both in one call: there is no moment without the name.
      ::renameat2(AT_FDCWD, (aside / "link").c_str(), AT_FDCWD, temporary.c_str(), RENAME_EXCHANGE);
      if (fs::is_symlink(aside / "link")) continue;
      fs::remove(aside / "link");
      fs::create_directory_symlink(victim, aside / "link");
    }
  };
  std::thread one(attack, home.volume() / "one");
  std::thread two(attack, home.volume() / "two");
  int refused = 0;
  int swapped = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while ((refused < 3 || swapped < 3) && std::chrono::steady_clock::now() < end) {
    if (!home.ask(true)) ++refused;
    if (::unlink((home.volume() / "active").c_str()) == 0) ++swapped;
    ::rmdir((home.volume() / "active").c_str());
  }
  over = true;
  one.join();
  two.join();
  WARN(refused << " times before it was open, " << swapped << " times after");
  CHECK(refused >= 3);
  CHECK(swapped >= 3);
  check_status(victim, 0, 0, 0700);
}
