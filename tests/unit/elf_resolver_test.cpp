// Roots made of hand-made files: paths followed inside them, closures, dlopen, foreign machines.
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "catch.h"
#include "elf_maker.h"
#include "jailer/elf/resolver.h"

using namespace jail::elf;
using jail::elf::testing::Maker;
using Strings = std::vector<std::string>;
namespace fs = std::filesystem;

namespace {

class Root {
 public:
  Root() {
    char name[] = "/tmp/jail-elf-XXXXXX";
    path_ = ::mkdtemp(name);
  }
  ~Root() { fs::remove_all(path_); }
  Root(const Root&) = delete;
  Root& operator=(const Root&) = delete;

  void write(const std::string& at, const std::string& bytes) const {
    fs::create_directories(fs::path(path_ + at).parent_path());
    std::ofstream(path_ + at, std::ios::binary) << bytes;
  }
  void link(const std::string& at, const std::string& target) const {
    fs::create_directories(fs::path(path_ + at).parent_path());
    fs::create_symlink(target, path_ + at);
  }
  void fifo(const std::string& at) const {
    fs::create_directories(fs::path(path_ + at).parent_path());
    REQUIRE(::mkfifo((path_ + at).c_str(), 0600) == 0);
  }
  void put_library(const std::string& at, const Strings& needed, Maker maker = {}) const {
    for (const std::string& name : needed) maker.names.emplace_back(DT_NEEDED, name);
    if (maker.soname.empty() && maker.interpreter.empty()) maker.soname = at.substr(at.rfind('/') + 1);
    write(at, maker.make());
  }
  void program(const std::string& at, const Strings& needed, Maker maker = {}) const {
    maker.interpreter = "/lib64/ld-linux-x86-64.so.2";
    put_library(at, needed, std::move(maker));
  }
  void loader() const { put_library("/lib64/ld-linux-x86-64.so.2", {}); }
  [[nodiscard]] Resolver open() const { return std::move(*Resolver::open(path_)); }

 private:
  std::string path_;
};

Strings paths(const Closure& closure) {
  Strings result;
  for (const Object& object : closure.objects) result.push_back(object.path);
  return result;
}

}  // namespace

TEST_CASE("paths are followed as after chroot") {
  const Root root;
  root.write("/usr/lib/file", "x");
  root.link("/lib", "usr/lib");
  root.link("/abs", "/lib/file");
  root.link("/up", "../../../../usr/lib/file");
  root.link("/loop", "loop");
  root.link("/dangling", "nowhere");
  root.link("/etc-passwd", "/etc/passwd");
  const Resolver resolver = root.open();
  const auto found = resolver.locate("/abs");
  REQUIRE(found);
  CHECK(found->real == "/usr/lib/file");
  REQUIRE(found->hops.size() == 2);
  CHECK(found->hops[0].path == "/abs");
  CHECK(found->hops[1].path == "/lib");
  CHECK(found->hops[1].target == "usr/lib");
  CHECK(resolver.locate("/up")->real == "/usr/lib/file");
  CHECK(resolver.locate("/lib/../lib/./file")->real == "/usr/lib/file");
  CHECK(resolver.locate("/../..")->real == "/");
  CHECK(resolver.locate("/lib/")->real == "/usr/lib");
  CHECK_FALSE(resolver.locate("/lib/file/"));
  CHECK_FALSE(resolver.locate("/lib/file/."));
  CHECK_FALSE(resolver.locate("/loop"));
  CHECK_FALSE(resolver.locate("/dangling"));
  CHECK_FALSE(resolver.locate("/etc-passwd"));  // the host's is not ours
  CHECK_FALSE(resolver.locate("relative"));
  CHECK_FALSE(resolver.locate(""));
  CHECK_FALSE(resolver.locate("/" + std::string(5000, 'a')));
  CHECK_FALSE(resolver.locate("/" + std::string(300, 'a')));
}

TEST_CASE("a closure, breadth first") {
  const Root root;
  root.loader();
  root.put_library("/usr/lib/liba.so", {"libc.so"});
  root.put_library("/usr/lib/libb.so", {"ld-linux-x86-64.so.2", "liba.so"});
  Maker maker;
  maker.symbols = {{"getaddrinfo", true}, {"own", false}};
  root.put_library("/usr/lib/libc.so", {}, maker);
  root.program("/bin/prog", {"liba.so", "libb.so"});
  Resolver resolver = root.open();
  const auto closure = resolver.resolve("/bin/prog");
  if (!closure) FAIL(closure.error().message);
  CHECK(paths(*closure) == Strings{"/bin/prog", "/usr/lib/liba.so", "/usr/lib/libb.so", "/usr/lib/libc.so",
                                   "/lib64/ld-linux-x86-64.so.2"});
  CHECK(closure->objects[3].needed_by == "/usr/lib/liba.so");
  CHECK(closure->objects[1].rule == "default directory");
  CHECK(closure->objects[4].rule == "interpreter");
  CHECK(closure->imports == Strings{"getaddrinfo"});
  CHECK(closure->interpreter == "/lib64/ld-linux-x86-64.so.2");
  CHECK_FALSE(closure->is_static);
}

TEST_CASE("a missing library is told with its chain and all places, for all that are missing") {
  const Root root;
  root.loader();
  root.put_library("/usr/lib/liba.so", {"libgone.so", "liblost.so"});
  root.program("/bin/prog", {"liba.so"});
  Resolver resolver = root.open();
  for (const bool tried : {false, true}) {
    const auto closure = resolver.resolve("/bin/prog", {false, tried});
    REQUIRE_FALSE(closure);
    CHECK(closure.error().exit == jail::Exit::no_input);
    CHECK(closure.error().message.find("libgone.so not found, needed by /usr/lib/liba.so <- /bin/prog") == 0);
    CHECK(closure.error().message.find("/usr/lib/libgone.so (no such file)") != std::string::npos);
    CHECK(closure.error().message.find("liblost.so not found") != std::string::npos);
    CHECK(closure.error().hint.find("libgone.so") != std::string::npos);
  }
}

TEST_CASE("dlopen: by name with the program's own paths, by path, or what is loaded already") {
  const Root root;
  root.loader();
  root.put_library("/usr/lib/liba.so", {});
  root.put_library("/opt/libplugin.so", {"liba.so", "libdep.so"});
  root.put_library("/usr/lib/libdep.so", {});
  Maker maker;
  maker.names = {{DT_RUNPATH, "/opt"}};
  root.program("/bin/prog", {"liba.so"}, maker);
  root.program("/bin/other", {"liba.so"});
  Resolver resolver = root.open();
  const auto plugin = resolver.resolve_library("libplugin.so", "/bin/prog");
  REQUIRE(plugin);
  CHECK(paths(*plugin) == Strings{"/opt/libplugin.so", "/usr/lib/liba.so", "/usr/lib/libdep.so"});
  CHECK(plugin->objects[0].rule == "runpath");
  CHECK_FALSE(resolver.resolve_library("libplugin.so", "/bin/other"));
  CHECK(resolver.resolve_library("/opt/libplugin.so", "/bin/other"));
  CHECK(paths(*resolver.resolve_library("liba.so", "/bin/other")) == Strings{"/usr/lib/liba.so"});
  CHECK_FALSE(resolver.resolve_library("", "/bin/other"));
}

TEST_CASE("versions are checked") {
  const Root root;
  root.loader();
  Maker provider;
  provider.version_definitions = {"liba.so", "A_1"};
  root.put_library("/usr/lib/liba.so", {}, provider);
  Maker user;
  user.version_needs = {{"liba.so", "A_1"}};
  root.program("/bin/good", {"liba.so"}, user);
  user.version_needs = {{"liba.so", "A_2"}};
  root.program("/bin/bad", {"liba.so"}, user);
  Resolver resolver = root.open();
  CHECK(resolver.resolve("/bin/good"));
  const auto bad = resolver.resolve("/bin/bad");
  REQUIRE_FALSE(bad);
  CHECK(bad.error().message.find("version 'A_2' not found (required by /bin/bad)") != std::string::npos);
}

TEST_CASE("a foreign root: 32 and 64 bits, big endian") {
  const Root root;
  Maker maker;
  maker.big = true;
  maker.machine = EM_S390;
  root.put_library("/usr/lib/s390x-linux-gnu/liba.so", {}, maker);
  root.put_library("/usr/lib/liba.so",
                   {});  // x86-64: of another byte order, and for that fatal if it came first
  maker.interpreter = "/lib/ld64.so.1";
  root.put_library("/bin/prog", {"liba.so"}, maker);
  maker.interpreter.clear();
  root.put_library("/lib/ld64.so.1", {}, maker);
  Resolver resolver = root.open();
  const auto closure = resolver.resolve("/bin/prog");
  if (!closure) FAIL(closure.error().message);
  CHECK(paths(*closure) == Strings{"/bin/prog", "/usr/lib/s390x-linux-gnu/liba.so"});
}

TEST_CASE("files that are no programs") {
  const Root root;
  root.write("/empty", "");
  root.write("/text", "hello");
  Maker object;
  object.type = ET_REL;
  root.put_library("/object.o", {}, object);
  Resolver resolver = root.open();
  for (const char* path : {"/empty", "/text", "/object.o", "/", "/none", "relative"}) {
    CAPTURE(path);
    CHECK_FALSE(resolver.resolve(path));
  }
  CHECK_FALSE(Resolver::open("/nonexistent/root"));
}

TEST_CASE("a fifo or device in the way is not opened") {
  const Root root;
  root.loader();
  root.program("/bin/prog", {"liba.so"});
  root.fifo("/usr/lib/liba.so");  // a plain open would hang
  Resolver resolver = root.open();
  const auto closure = resolver.resolve("/bin/prog");
  REQUIRE_FALSE(closure);
  CHECK(closure.error().message.find("neither a regular file nor a directory") != std::string::npos);
}
