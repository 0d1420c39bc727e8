// The planner over this machine's own named (package bind9), and over roots made for the purpose.
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "catch.h"
#include "jailer/closure/packages.h"
#include "jailer/closure/planner.h"
#include "jailer/closure/why.h"

namespace {

using namespace jail;
namespace fs = std::filesystem;

struct TemporaryDir {
  fs::path path;
  TemporaryDir() {
    char name[] = "/tmp/jail-closure-XXXXXX";
    path = ::mkdtemp(name);
  }
  ~TemporaryDir() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

manifest::Manifest named() {
  manifest::Manifest m;
  m.name = "named";
  m.packages = {"bind9"};
  m.tree.binaries = {"/usr/sbin/named"};
  m.tree.users = {"bind"};
  m.tree.devices = {"null", "urandom"};
  m.service.command = {"/usr/sbin/named", "-f"};
  m.service.user = "bind";
  m.configs.push_back({"/etc/bind", "/etc/bind", false});
  m.volumes.push_back({"named-cache", "/var/cache/bind", "bind", "", 0750, false});
  return m;
}

bool have_named() {
  if (fs::exists("/usr/sbin/named") && fs::exists("/etc/bind")) return true;
  WARN("skipped: no /usr/sbin/named here (package bind9)");
  return false;
}

// Where a path leads in the plan's tree, as the kernel would follow it; null for a path that the tree lacks.
const Entry* walk(const Plan& plan, fs::path path, int links = 0) {
  fs::path here = "/";
  for (auto part = std::next(path.begin()); part != path.end(); ++part) {
    const auto found = plan.entries.find((here / *part).string());
    if (found == plan.entries.end() || links > 20) return nullptr;
    if (found->second.type == EntryType::symlink) {
      fs::path rest = here / found->second.target;
      for (auto more = std::next(part); more != path.end(); ++more) rest /= *more;
      return walk(plan, rest.lexically_normal(), links + 1);
    }
    here /= *part;
  }
  return &plan.entries.at(here.string());
}

}  // namespace

TEST_CASE("named's plan is whole, and every entry says why") {
  if (!have_named()) return;
  const TemporaryDir home;
  Instance instance;
  instance.state = home.path;
  const auto plan = make_plan(instance, named(), "/");
  INFO((plan ? std::string() : plan.error().message));
  REQUIRE(plan);

  for (const char* path :
       {"/usr/sbin/named", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"}) {
    const Entry* entry = walk(*plan, path);
    INFO(path);
    REQUIRE(entry != nullptr);
    CHECK(entry->type == EntryType::file);
    CHECK(fs::equivalent(entry->source, path));
  }
  CHECK(plan->entries.at("/lib").target == fs::read_symlink("/lib"));
  CHECK(plan->entries.at("/dev/null").device == makedev(1, 3));
  CHECK(plan->entries.at("/dev/null").mode == 0666);
  for (const char* path : {"/dev", "/proc", "/tmp", "/run", "/run/systemd", "/etc/bind", "/var/cache/bind"})
    CHECK(plan->entries.at(path).type == EntryType::directory);
  const std::string passwd = *plan->entries.at("/etc/passwd").content;
  CHECK(std::count(passwd.begin(), passwd.end(), '\n') == 1);
  CHECK(passwd.starts_with("bind:*:"));
  REQUIRE(plan->volumes.size() == 1);
  CHECK(plan->volumes[0].uid != 0);

  Reasons reasons;
  for (const auto& [path, entry] : plan->entries) {
    reasons[path] = entry.why;
    CHECK((entry.mode & 06022U & (entry.type == EntryType::file ? 07777U : 0U)) == 0);
    if (path != "/") CHECK(plan->entries.at(fs::path(path).parent_path()).type == EntryType::directory);
  }
  for (const auto& [path, why] : reasons) {
    INFO(path);
    CHECK_FALSE(shortest_chain(reasons, path).empty());
  }
}

TEST_CASE("the planned files are what the real loader opens, and they run after chroot") {
  if (!have_named()) return;
  if (::geteuid() != 0) {
    WARN("skipped: chroot needs root");
    return;
  }
  const TemporaryDir home;
  Instance instance;
  instance.state = home.path;
  const auto plan = make_plan(instance, named(), "/");
  REQUIRE(plan);
  const fs::path tree = home.path / "tree";
  fs::create_directory(tree);
  for (const auto& [path, entry] : plan->entries) {
    const fs::path to = tree.string() + path;
    if (entry.type == EntryType::directory) fs::create_directories(to);
    if (entry.type == EntryType::symlink) fs::create_symlink(entry.target, to);
    if (entry.type == EntryType::file && entry.content) std::ofstream(to) << *entry.content;
    if (entry.type == EntryType::file && !entry.content) fs::copy_file(entry.source, to);
  }
  const pid_t child = ::fork();
  if (child == 0) {
    if (::chroot(tree.c_str()) != 0 || ::chdir("/") != 0) ::_exit(99);
    ::close(1);
    ::execl("/usr/sbin/named", "named", "-V", nullptr);
    ::_exit(98);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("all that is wrong is told at once, with its place") {
  if (!have_named()) return;
  const TemporaryDir home;
  Instance instance;
  instance.state = home.path;
  manifest::Manifest m = named();
  m.tree.binaries.emplace_back("/usr/sbin/nmaed");
  m.tree.users.emplace_back("nosuchuser");
  m.tree.devices.emplace_back("nosuchdevice");
  m.tree.libraries.emplace_back("libnosuch.so.9");
  m.origins["tree.binaries[1]"] = {"named.toml", 12, 15};
  const auto plan = make_plan(instance, m, "/");
  REQUIRE_FALSE(plan);
  CHECK(plan.error().exit == Exit::manifest);
  const std::string& text = plan.error().message;
  INFO(text);
  CHECK(text.find("named.toml:12:15: ") != std::string::npos);
  for (const char* word :
       {"nmaed", "nosuchuser", "apt install bind9", "nosuchdevice", "known: null", "libnosuch.so.9"})
    CHECK(text.find(word) != std::string::npos);
}

TEST_CASE("dpkg's own answers are ours") {
  if (!fs::exists("/var/lib/dpkg/status") || !have_named()) return;
  const auto database = PackageDatabase::open("/", {"/usr/sbin/named", "/usr/lib/x86_64-linux-gnu/libc.so.6",
                                                    "/lib/x86_64-linux-gnu/libc.so.6", "/nowhere"});
  REQUIRE(database);
  CHECK(database->owner("/usr/sbin/named")->package == "bind9");
  CHECK_FALSE(database->owner("/usr/sbin/named")->version.empty());
  CHECK(database->owner("/usr/lib/x86_64-linux-gnu/libc.so.6")->package == "libc6");
  CHECK(database->owner("/lib/x86_64-linux-gnu/libc.so.6") ==
        database->owner("/usr/lib/x86_64-linux-gnu/libc.so.6"));
  CHECK_FALSE(database->owner("/nowhere"));
}
