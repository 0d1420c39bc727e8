// Paths below a directory: by openat2 and step by step they lead to the same, and never outside.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "catch.h"
#include "supervisor/base/open_below.h"

namespace {

using namespace jail;
namespace fs = std::filesystem;

/// A root with every way out that a link can name, beside a secret that none must reach.
class Place {
 public:
  Place() {
    char name[] = "/tmp/jail-below-XXXXXX";
    top_ = ::mkdtemp(name);
    for (const char* directory : {"out", "root/a/b/c", "root/etc", "root/deep/er"})
      fs::create_directories(top_ / directory);
    for (const char* file :
         {"out/secret", "root/a/file", "root/a/b/c/file", "root/etc/passwd", "root/secret"})
      std::ofstream(top_ / file) << file;
    const std::map<std::string, std::string> links = {
        {"root/up", ".."},
        {"root/far-up", "../../../../../.."},
        {"root/out", "../out/secret"},
        {"root/absolute", "/a/file"},
        {"root/absolute-out", (top_ / "out/secret").string()},
        {"root/a/to-etc", "../etc"},
        {"root/a/b/up-and-out", "../../../out/secret"},
        {"root/chain1", "chain2"},
        {"root/chain2", "chain3"},
        {"root/chain3", "/a/b/../file"},
        {"root/loop", "loop"},
        {"root/loop-a", "loop-b"},
        {"root/loop-b", "loop-a"},
        {"root/dangling", "nowhere"},
        {"root/to-root", "/"},
        {"root/dot", "."},
        {"root/proc-self-root", "/proc/self/root/etc/passwd"},
        {"root/through-file", "a/file/x"},
    };
    for (const auto& [link, target] : links) fs::create_symlink(target, top_ / link);
    root_.reset(::open((top_ / "root").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(root_);
  }
  ~Place() { fs::remove_all(top_); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  [[nodiscard]] int root() const { return root_.get(); }
  [[nodiscard]] ino_t inode(const std::string& name) const {
    struct stat status {};
    REQUIRE(::lstat((top_ / name).c_str(), &status) == 0);
    return status.st_ino;
  }

 private:
  fs::path top_;
  UniqueFd root_;
};

/// The inode that was opened, or a negative errno.
long what(const UniqueFd& fd) {
  const int error = errno;
  struct stat status {};
  if (!fd) return -error;
  REQUIRE(::fstat(fd.get(), &status) == 0);
  return static_cast<long>(status.st_ino);
}

const char* const paths[] = {"/",
                             ".",
                             "/a/file",
                             "a/file",
                             "/a/./b/../file",
                             "/../../a/file",
                             "/a/b/c/../../../../../etc/passwd",
                             "/a//file",
                             "/a/file/",
                             "/a/file/x",
                             "/none",
                             "/none/x",
                             "/up",
                             "/up/secret",
                             "/far-up/etc/passwd",
                             "/out",
                             "/absolute",
                             "/absolute-out",
                             "/a/to-etc/passwd",
                             "/a/b/up-and-out",
                             "/chain1",
                             "/loop",
                             "/loop/x",
                             "/loop-a",
                             "/dangling",
                             "/to-root",
                             "/to-root/a/file",
                             "/to-root/to-root/up/up/secret",
                             "/dot/dot/a/file",
                             "/proc-self-root",
                             "/through-file"};

}  // namespace

TEST_CASE("Within a root both walks find the same, and nothing outside of it") {
  const Place place;
  for (const int flags : {O_PATH, O_RDONLY, O_PATH | O_NOFOLLOW, O_RDONLY | O_NOFOLLOW}) {
    for (const char* path : paths) {
      // A trailing slash asks for a directory; ours walks without it, and is never given one.
      if (std::string_view(path) == "/a/file/") continue;
      INFO(path << " with flags " << flags);
      const long kernel = what(open_in_root(place.root(), path, flags));
      const long steps = what(open_in_root(place.root(), path, flags, Walk::components));
      CHECK(kernel == steps);
      CHECK(steps != static_cast<long>(place.inode("out/secret")));
      CHECK(kernel != static_cast<long>(place.inode("out/secret")));
    }
  }
  CHECK(what(open_in_root(place.root(), "/far-up/etc/passwd", O_PATH, Walk::components)) ==
        static_cast<long>(place.inode("root/etc/passwd")));
  CHECK(what(open_in_root(place.root(), "/chain1", O_PATH, Walk::components)) ==
        static_cast<long>(place.inode("root/a/file")));
}

TEST_CASE("Beneath a directory no link and no dots lead anywhere, by either walk") {
  const Place place;
  std::size_t opened = 0;
  for (const auto& open : {open_beneath, open_without_links}) {
    for (const char* path : paths) {
      if (std::string_view(path) == "/a/file/") continue;
      INFO(path);
      const std::string_view text = path;
      const long kernel = what(open(place.root(), path, O_PATH, Walk::automatic));
      const long steps = what(open(place.root(), path, O_PATH, Walk::components));
      // The kernel lets ".." go back on what it went down; we have no use for it.
      if (text.find("..") == std::string_view::npos) CHECK((kernel < 0) == (steps < 0));
      if (text.find("..") != std::string_view::npos) CHECK(steps == -EXDEV);
      if (kernel > 0 && steps > 0) CHECK(kernel == steps);
      opened += steps > 0 ? 1 : 0;
    }
    // The link itself can be had, what it points to cannot.
    CHECK(what(open(place.root(), "/out", O_PATH, Walk::components)) ==
          static_cast<long>(place.inode("root/out")));
    CHECK(what(open(place.root(), "/out", O_RDONLY, Walk::components)) == -ELOOP);
    CHECK(what(open(place.root(), "/a/to-etc/passwd", O_RDONLY, Walk::components)) == -ENOTDIR);
  }
  CHECK(opened > 8);
}

TEST_CASE("Another file system below is entered only where that is wanted") {
  const UniqueFd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (const Walk walk : {Walk::automatic, Walk::components}) {
    CHECK(what(open_beneath(root.get(), "/proc/version", O_RDONLY, walk)) == -EXDEV);
    CHECK(what(open_without_links(root.get(), "/proc/version", O_RDONLY, walk)) > 0);
    CHECK(what(open_in_root(root.get(), "/proc/version", O_RDONLY, walk)) > 0);
  }
}

TEST_CASE("A walk shows each of its steps, and ends where it is told to") {
  const Place place;
  std::string seen;
  const VisitStep all = [&](int fd, const std::string& path) {
    REQUIRE(fd >= 0);
    seen += path + " ";
    return true;
  };
  CHECK(what(walk_in_root(place.root(), "/a/to-etc/passwd", O_PATH, all)) > 0);
  CHECK(seen == "/ /a /a/to-etc /etc ");
  const VisitStep not_there = [](int, const std::string& path) { return path != "/etc"; };
  CHECK(what(walk_in_root(place.root(), "/a/to-etc/passwd", O_PATH, not_there)) == -EPERM);
}
