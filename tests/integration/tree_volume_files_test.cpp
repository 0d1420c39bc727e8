// The files that a volume must have: made once, never touched again, whatever stands in their place.
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "catch.h"
#include "jailer/tree/volumes.h"

using namespace jail;
namespace fs = std::filesystem;

namespace {

struct Home {
  fs::path top;
  Instance instance;
  std::vector<PlannedVolume> volumes = {{"leases", "/var/lib/dhcp", 4001, 4002, 0750, {"dhcpd.leases"}}};

  Home() {
    std::string name = "/tmp/jail-volumes-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    top = name;
    instance.state = top / "state";
    fs::create_directories(instance.state);
  }
  ~Home() {
    std::error_code ignored;
    fs::remove_all(top, ignored);
  }
  Home(const Home&) = delete;
  Home& operator=(const Home&) = delete;

  [[nodiscard]] fs::path volume() const { return fs::path(instance.volumes()) / "leases"; }
  [[nodiscard]] fs::path file() const { return volume() / "dhcpd.leases"; }
  /// Whether all is there.
  bool check(bool make) const {
    const auto there = tree::check_volumes(instance, volumes, make);
    INFO((there ? "" : there.error().message));
    REQUIRE(there);
    return *there;
  }
};

struct stat status_of(const fs::path& path) {
  struct stat status {};
  REQUIRE(::lstat(path.c_str(), &status) == 0);
  return status;
}

std::string content(const fs::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("a build makes a volume's files, empty and the owner's", "[volumes]") {
  const Home home;
  CHECK_FALSE(home.check(false));
  CHECK_FALSE(fs::exists(home.volume()));
  home.check(true);
  const struct stat status = status_of(home.file());
  CHECK(S_ISREG(status.st_mode));
  CHECK((status.st_mode & 07777U) == 0640);
  CHECK(status.st_uid == 4001);
  CHECK(status.st_gid == 4002);
  CHECK(status.st_size == 0);
  CHECK(home.check(false));
  CHECK(std::distance(fs::directory_iterator(home.volume()), {}) == 1);
}

TEST_CASE("a file that is there keeps its bytes, owner and mode", "[volumes]") {
  const Home home;
  home.check(true);
  std::ofstream(home.file()) << "lease 192.0.2.1 {}\n";
  REQUIRE(::chown(home.file().c_str(), 7, 8) == 0);
  REQUIRE(::chmod(home.file().c_str(), 0600) == 0);
  const struct stat before = status_of(home.file());
  CHECK(home.check(false));
  CHECK(home.check(true));
  const struct stat after = status_of(home.file());
  CHECK(content(home.file()) == "lease 192.0.2.1 {}\n");
  CHECK(after.st_ino == before.st_ino);
  CHECK(after.st_uid == 7);
  CHECK((after.st_mode & 07777U) == 0600);
}

TEST_CASE("a file that was lost, or that a newer manifest asks for, is made in the old volume", "[volumes]") {
  Home home;
  home.check(true);
  std::ofstream(home.volume() / "other") << "state";
  fs::remove(home.file());
  home.volumes.front().files.emplace_back("dhcpd6.leases");
  CHECK_FALSE(home.check(false));
  home.check(true);
  CHECK(fs::is_regular_file(home.file()));
  CHECK(status_of(home.volume() / "dhcpd6.leases").st_uid == 4001);
  CHECK(content(home.volume() / "other") == "state");
}

TEST_CASE("a hostile owner of the volume turns nothing of root's into its own", "[volumes]") {
  const Home home;
  home.check(true);
  const fs::path victim = home.top / "victim";
  std::ofstream(victim) << "root's";
  const struct stat before = status_of(victim);
  fs::remove(home.file());
  SECTION("a link to a file of root") {
    fs::create_symlink(victim, home.file());
  }
  SECTION("a link to where nothing is") {
    fs::create_symlink(home.top / "not-there", home.file());
  }
  SECTION("links under every temporary name") {
    fs::create_symlink(victim, home.volume() / ".new-dhcpd.leases");
  }
  SECTION("a second name of a file of root") {
    fs::create_hard_link(victim, home.volume() / ".new-dhcpd.leases");
  }
  home.check(true);
  const struct stat after = status_of(victim);
  CHECK(content(victim) == "root's");
  CHECK(after.st_uid == before.st_uid);
  CHECK(after.st_mode == before.st_mode);
  CHECK_FALSE(fs::exists(home.top / "not-there"));
}

TEST_CASE("what cannot be replaced by a file is left alone", "[volumes]") {
  const Home home;
  home.check(true);
  fs::remove(home.file());
  fs::create_directory(home.file());
  CHECK(home.check(true));
  CHECK(fs::is_directory(home.file()));
  fs::create_directory(home.volume() / "sub");
  CHECK(home.check(false));
}
