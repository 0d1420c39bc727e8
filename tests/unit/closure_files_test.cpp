// Planning over small roots made for the purpose: no ELF files, so no host is asked.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "catch.h"
#include "jailer/closure/loader_cache.h"
#include "jailer/closure/packages.h"
#include "jailer/closure/planner.h"
#include "jailer/closure/source_root.h"
#include "jailer/closure/why.h"
#include "jailer/elf/ld_cache.h"

namespace {

using namespace jail;
namespace fs = std::filesystem;

struct Root {
  fs::path path;
  Instance instance;

  Root() {
    char name[] = "/tmp/jail-root-XXXXXX";
    path = ::mkdtemp(name);
    write("etc/passwd",
          "root:x:0:0:root:/root:/bin/bash\nbind:x:103:110:,,,:/var/cache/bind:/usr/sbin/nologin\n");
    write("etc/group", "root:x:0:\nbind:x:110:\nadm:x:4:bind,syslog\n");
    instance.state = "/nonexistent";
  }
  ~Root() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((path / name).parent_path());
    std::ofstream(path / name) << text;
  }
  void link(const std::string& target, const std::string& name) const {
    fs::create_directories((path / name).parent_path());
    fs::create_symlink(target, path / name);
  }
  [[nodiscard]] Result<Plan> plan(const manifest::Manifest& m) const { return make_plan(instance, m, path); }
};

manifest::File copy(const std::string& from, const std::string& to) {
  manifest::File file;
  file.from = from;
  file.to = to;
  return file;
}

Plan good(const Root& root, const manifest::Manifest& m) {
  auto plan = root.plan(m);
  INFO((plan ? std::string() : plan.error().message));
  REQUIRE(plan);
  return *plan;
}

std::string bad(const Root& root, const manifest::Manifest& m) {
  const auto plan = root.plan(m);
  REQUIRE_FALSE(plan);
  CHECK(plan.error().exit == Exit::manifest);
  return plan.error().message;
}

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("directories are copied whole, without set-id bits and foreign write") {
  const Root root;
  root.write("srv/data/a", "a");
  root.write("srv/data/sub/b", "b");
  root.link("../a", "srv/data/sub/to-a");
  ::chmod((root.path / "srv/data/a").c_str(), 06777);
  manifest::Manifest m;
  m.tree.files = {copy("/srv/data", "/data")};
  const Plan plan = good(root, m);
  CHECK(plan.entries.at("/data/a").mode == 0755);
  CHECK(plan.entries.at("/data/a").source == "/srv/data/a");
  CHECK(plan.entries.at("/data/sub/to-a").target == "../a");
  CHECK(plan.entries.at("/data/sub").type == EntryType::directory);
}

TEST_CASE("links that leave the tree or lead to what it lacks are refused; dangling ones are told") {
  const Root root;
  root.write("srv/l/file", "x");
  root.write("elsewhere", "x");
  root.link("../../../../etc/shadow", "srv/l/up");
  root.link("/elsewhere", "srv/l/out");
  root.link("/gone", "srv/l/dangling");
  root.link("loop", "srv/l/loop");
  root.link("/proc/self/mounts", "srv/l/mounts");
  manifest::Manifest m;
  m.tree.files = {copy("/srv/l", "/l")};
  const std::string text = bad(root, m);
  INFO(text);
  CHECK(holds(text, "/srv/l/up"));
  CHECK(holds(text, "'/srv/l/out' -> '/elsewhere': the tree lacks"));
  CHECK(holds(text, "/srv/l/loop"));
  CHECK_FALSE(holds(text, "dangling"));
  CHECK_FALSE(holds(text, "mounts"));
}

TEST_CASE("sockets, fifos and missing sources are refused by name") {
  const Root root;
  root.write("srv/s/file", "x");
  REQUIRE(::mkfifo((root.path / "srv/s/fifo").c_str(), 0600) == 0);
  manifest::Manifest m;
  m.tree.files = {copy("/srv/s", "/s"), copy("/nothing", "/n")};
  const std::string text = bad(root, m);
  CHECK(holds(text, "'/srv/s/fifo' is a fifo"));
  CHECK(holds(text, "/nothing"));
}

TEST_CASE("a source's links never lead out of the root") {
  const Root root;
  root.link("/etc/passwd", "srv/link");  // of the root, not of the host
  manifest::Manifest m;
  m.tree.files = {copy("/srv/link", "/copy")};
  CHECK(good(root, m).entries.at("/copy").source == "/etc/passwd");
  const auto source = SourceRoot::open(root.path);
  REQUIRE(source);
  CHECK(holds(*source->read("/../../../etc/passwd", 4096), "bind:x:103"));
}

TEST_CASE("paths through a merged /usr are put at their real place") {
  const Root root;
  fs::create_directories(root.path / "usr/lib");
  root.link("usr/lib", "lib");
  manifest::Manifest m;
  manifest::File file;
  file.to = "/lib/conf";
  file.text = "x";
  m.tree.files = {file};
  const Plan plan = good(root, m);
  CHECK(plan.entries.at("/lib").target == "usr/lib");
  CHECK(*plan.entries.at("/usr/lib/conf").content == "x");
  CHECK(plan.entries.count("/lib/conf") == 0);
}

TEST_CASE("passwd and group hold what was named, and no password") {
  const Root root;
  manifest::Manifest m;
  m.tree.users = {"bind"};
  m.tree.groups = {"adm"};
  const Plan plan = good(root, m);
  CHECK(*plan.entries.at("/etc/passwd").content == "bind:*:103:110:,,,:/var/cache/bind:/usr/sbin/nologin\n");
  CHECK(*plan.entries.at("/etc/group").content == "adm:*:4:bind\nbind:*:110:\n");
  CHECK(plan.entries.count("/etc/shadow") == 0);
}

TEST_CASE("account files are read strictly") {
  const Root root;
  for (const char* line :
       {"a:x:1:1\n", ":x:1:1:::\n", "a:x:-1:1:::\n", "a:x:0x1:1:::\n", "a:x: 5:1:::\n",
        "a:x:4294967295:1:::\n", "a:x:4294967296:1:::\n", "a:x::1:::\n", "a\x01:x:1:1:::\n"}) {
    root.write("etc/passwd", std::string("root:x:0:0:root:/root:/bin/sh\n") + line);
    const auto accounts = read_accounts(root.path);
    INFO(line);
    REQUIRE_FALSE(accounts);
    CHECK(holds(accounts.error().message, "/etc/passwd:2: "));
  }
  root.write("etc/passwd", "+::::::\n# comment\n\nroot:x:0:0:root:/root:/bin/sh");
  CHECK(read_accounts(root.path)->users.size() == 1);
}

TEST_CASE("two sources for one path are a contradiction") {
  const Root root;
  manifest::File one, two;
  one.to = two.to = "/etc/thing";
  one.text = "1";
  two.text = "2";
  manifest::Manifest m;
  m.tree.files = {one, two};
  CHECK(holds(bad(root, m), "'/etc/thing' would be a file twice"));
  m.tree.files = {one};
  m.tree.directories = {"/etc/thing"};
  CHECK(holds(bad(root, m), "a file and a directory"));
}

TEST_CASE("mount points take the type of what is mounted on them") {
  const Root root;
  root.write("etc/one.conf", "x");
  fs::create_directories(root.path / "etc/dir");
  manifest::Manifest m;
  m.configs = {
      {"/etc/one.conf", "/etc/one.conf", false}, {"/etc/dir", "/etc/dir", false}, {"/no", "/no", true}};
  const Plan plan = good(root, m);
  CHECK(plan.entries.at("/etc/one.conf").type == EntryType::file);
  CHECK(plan.entries.at("/etc/one.conf").content->empty());
  CHECK(plan.entries.at("/etc/dir").type == EntryType::directory);
  m.configs[2].optional = false;
  CHECK(holds(bad(root, m), "config '/no'"));
}

TEST_CASE("the directory of a log socket is made where it is missing, in the tree and in a volume") {
  const Root root;
  manifest::Manifest m;
  m.service.log_sockets = {"/srv/dev/log", "/v/a/b/log", "/vv/dev/log"};
  m.volumes.push_back({"v", "/v", "root", "", 0750, false});
  m.volumes.back().directories = {{"a", "", "", 0700}};
  const Plan plan = good(root, m);
  CHECK(plan.entries.at("/srv/dev").type == EntryType::directory);
  CHECK(plan.entries.at("/vv/dev").type == EntryType::directory);
  REQUIRE(plan.volumes.size() == 1);
  const auto& made = plan.volumes[0].directories;
  REQUIRE(made.size() == 2);
  CHECK((made[0].path == "a" && made[0].mode == 0700));
  CHECK((made[1].path == "a/b" && made[1].mode == 0755 && made[1].uid == 0));
}

TEST_CASE("the shortest chain is found, also where reasons run in a circle") {
  const Reasons reasons = {{"/a", {{"binary", "", "tree.binaries[0]"}}},
                           {"/b", {{"needed", "/c", "b"}, {"needed", "/a", "b"}}},
                           {"/c", {{"needed", "/b", "c"}}},
                           {"/x/b2", {{"needed", "/x/b2", ""}}}};
  const auto chain = shortest_chain(reasons, "/c");
  REQUIRE(chain.size() == 3);
  CHECK(chain[0].path == "/c");
  CHECK(chain[1].path == "/b");
  CHECK(chain[2].path == "/a");
  CHECK(shortest_chain(reasons, "/x/b2").empty());
  CHECK(*find_entry(reasons, "b") == "/b");
  CHECK(*find_entry(reasons, "b2") == "/x/b2");
  CHECK_FALSE(find_entry(reasons, "/nothing"));
}

TEST_CASE("The distribution is what os-release says, if that is plain words") {
  const auto told = [](const std::string& text) {
    const Root root;
    root.write("etc/os-release", text);
    return SourceRoot::open(root.path)->distribution();
  };
  CHECK(told("PRETTY_NAME=\"x\"\nID=debian\nVERSION_ID=\"12\"\nID_LIKE=y\n") == "debian-12");
  CHECK(told("ID='ubuntu'\nVERSION_ID=24.04") == "ubuntu-24.04");
  CHECK(told("ID=debian\n") == "debian");
  CHECK(told("VERSION_ID=12\n").empty());
  CHECK(told("ID=\"a b\"\nVERSION_ID=12\n").empty());
  CHECK(told("ID=\"\nVERSION_ID=12\n").empty());
  CHECK(SourceRoot::open(Root().path)->distribution().empty());
}

TEST_CASE("owners come from the lists, in both spellings, diversions included") {
  const Root root;
  root.link("usr/lib", "lib");
  root.write("var/lib/dpkg/info/libc6:amd64.list", "/.\n/lib\n/lib/libc.so.6\n");
  root.write("var/lib/dpkg/info/tool.list", "/usr/bin/tool\n");
  root.write("var/lib/dpkg/info/wrap.list", "/usr/bin/tool\n");
  root.write("var/lib/dpkg/diversions", "/usr/bin/tool\n/usr/bin/tool.real\nwrap\n");
  root.write("var/lib/dpkg/status",
             "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36\n\n"
             "Package: tool\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n");
  const auto database = PackageDatabase::open(
      root.path, {"/usr/lib/libc.so.6", "/usr/bin/tool", "/usr/bin/tool.real", "/usr/bin/other"});
  REQUIRE(database);
  CHECK(*database->owner("/usr/lib/libc.so.6") == Owner{"libc6", "2.36", "amd64"});
  CHECK(database->owner("/usr/bin/tool")->package == "wrap");
  const auto versions = installed_versions(root.path);
  REQUIRE(versions);
  CHECK(*versions == std::map<std::string, std::string>{
                         {"libc6", "2.36"}, {"libc6:amd64", "2.36"}, {"tool", "1"}, {"tool:all", "1"}});
  CHECK(*database->owner("/usr/bin/tool.real") == Owner{"tool", "1", "all"});
  CHECK_FALSE(database->owner("/usr/bin/other"));
  const Root bare;
  CHECK_FALSE(PackageDatabase::open(bare.path, {"/x"})->owner("/x"));
}

TEST_CASE("what dpkg has noted since it wrote its status counts, the last word first") {
  const Root root;
  root.write("var/lib/dpkg/info/tool.list", "/usr/bin/tool\n");
  root.write("var/lib/dpkg/status",
             "Package: tool\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n");
  const auto version = [&root] {
    return PackageDatabase::open(root.path, {"/usr/bin/tool"})->owner("/usr/bin/tool")->version;
  };
  root.write("var/lib/dpkg/updates/0000",
             "Package: tool\nStatus: install reinstreq half-installed\nArchitecture: all\nVersion: 1\n");
  CHECK(version() == "1");
  root.write("var/lib/dpkg/updates/0001",
             "Package: tool\nStatus: install ok unpacked\nArchitecture: all\nVersion: 2\n");
  root.write("var/lib/dpkg/updates/tmp.i", "Package: tool\nStatus: install ok installed\nVersion: 3\n");
  CHECK(version() == "2");
}

TEST_CASE("a root's links do not lead to another root's lists") {
  const Root root;
  const Root elsewhere;
  elsewhere.write("info/evil.list", "/usr/bin/tool\n");
  root.link(elsewhere.path, "var/lib/dpkg");
  CHECK_FALSE(PackageDatabase::open(root.path, {"/usr/bin/tool"})->owner("/usr/bin/tool"));
  root.write(elsewhere.path.relative_path() / "info/tool.list", "/usr/bin/tool\n");
  CHECK(PackageDatabase::open(root.path, {"/usr/bin/tool"})->owner("/usr/bin/tool")->package == "tool");
}

TEST_CASE("the loader's cache is laid out as ld.so reads it, whatever the order it was asked in") {
  const CacheEntry one{"libb.so.2", "/opt/libb.so.2", 0x303}, two{"libb.so.10", "/opt/libb.so.10", 0x303};
  const std::string bytes = loader_cache_bytes({one, two});
  CHECK(bytes == loader_cache_bytes({two, one}));
  CHECK(bytes.starts_with("glibc-ld.so.cache1.1"));
  CHECK(bytes[20] == 2);
  CHECK(bytes.find("libb.so.10") < bytes.find("libb.so.2"));  // downwards, digits as numbers
  CHECK(bytes.size() ==
        48 + 2 * 24 + std::string("libb.so.10/opt/libb.so.10libb.so.2/opt/libb.so.2").size() + 4);
}

namespace {

std::uint64_t number_at(const std::string& bytes, std::size_t at, std::size_t size, bool big) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size; ++i)
    value = value << 8 | static_cast<unsigned char>(bytes[at + (big ? i : size - 1 - i)]);
  return value;
}

}  // namespace

TEST_CASE("the loader's cache of either byte order: builds for some processors before those for all") {
  constexpr std::uint64_t named = std::uint64_t{1} << 62, isa = std::uint64_t{2} << 32,
                          tls = std::uint64_t{1} << 63;
  const std::vector<CacheEntry> entries = {{"liba.so", "/opt/liba.so", 0x403},
                                           {"liba.so", "/opt/tls/liba.so", 0x403, "", tls},
                                           {"liba.so", "/opt/z14/liba.so", 0x403, "z14", named},
                                           {"liba.so", "/opt/z13/liba.so", 0x403, "z13", named | isa},
                                           {"libz.so", "/opt/libz.so", 0x403, "z14", named}};
  for (const bool big : {false, true}) {
    CAPTURE(big);
    const std::string bytes = loader_cache_bytes(entries, big);
    const auto u32 = [&](std::size_t at) { return number_at(bytes, at, 4, big); };
    CHECK(u32(20) == 5);
    CHECK(bytes[28] == (big ? 3 : 2));
    const std::size_t strings = 48 + 5 * 24, extensions = u32(32);
    CHECK(extensions == (strings + u32(24) + 3) / 4 * 4);
    CHECK(u32(48) == 0x403);
    CHECK(bytes.substr(u32(48 + 4)).c_str() == std::string("libz.so"));
    CHECK(number_at(bytes, 48 + 16, 8, big) == (named | 1));
    CHECK(number_at(bytes, 48 + 24 + 16, 8, big) == (named | isa | 0));
    CHECK(u32(extensions) == 0xEAA42174);
    CHECK(u32(extensions + 4) == 1);
    CHECK(u32(extensions + 8) == 1);
    CHECK(u32(extensions + 16) == extensions + 24);
    CHECK(u32(extensions + 20) == 8);
    CHECK(bytes.size() == extensions + 32);
    CHECK(bytes.substr(u32(extensions + 28)).c_str() == std::string("z14"));

    CHECK_FALSE(elf::LdCache::parse(bytes, !big));
    const auto cache = elf::LdCache::parse(bytes, big);
    REQUIRE(cache);
    CHECK(cache->problem().empty());
    std::vector<std::string> found;
    for (const elf::CacheEntry& entry : cache->entries())
      found.push_back(std::string(entry.path) + " " + std::string(entry.hwcap_name));
    CHECK(found == std::vector<std::string>{"/opt/libz.so z14", "/opt/z13/liba.so z13",
                                            "/opt/z14/liba.so z14", "/opt/tls/liba.so ", "/opt/liba.so "});
    CHECK(cache->entries()[1].isa_level() == 2);
    CHECK(cache->entries()[3].hwcap == tls);
  }
}
