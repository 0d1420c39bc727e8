// What ships beside the code: schema, man page, bundles, syscall groups, manifests.
#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "catch.h"
#include "jailer/manifest/references.h"
#include "jailer/manifest/schema.h"
#include "jailer/manifest/search.h"
#include "manifest_fixture.h"

using namespace jail;
using namespace jail::manifest;

namespace {

Instance shipped() {
  Instance instance;
  instance.manifest_dirs = {test::source_dir() + "/manifests"};
  return instance;
}

std::string slurp(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// The keys of a JSON schema, written as key_paths() writes them.
void add_keys(const nlohmann::json& schema, const std::string& prefix, std::set<std::string>& out) {
  if (!schema.contains("properties")) return;
  for (const auto& [name, value] : schema["properties"].items()) {
    const bool entries = value.value("type", "") == "array" && value["items"].contains("properties");
    const std::string path = prefix + name + (entries ? "[]" : "");
    out.insert(path);
    add_keys(entries ? value["items"] : value, path + ".", out);
  }
}

}  // namespace

TEST_CASE("the schema has the binder's keys, and demands what it demands") {
  const auto schema =
      nlohmann::json::parse(slurp(test::source_dir() + "/contrib/schema/manifest.schema.json"));
  std::set<std::string> keys;
  add_keys(schema, "", keys);
  const auto known = key_paths();
  CHECK(keys == std::set<std::string>(known.begin(), known.end()));
  const Key root = manifest_keys();
  for (const Key& key : root.children) {
    const auto& required = schema["required"];
    CHECK(key.required == (std::find(required.begin(), required.end(), key.name) != required.end()));
  }
}

TEST_CASE("the man page names every key") {
  const std::string page = slurp(test::source_dir() + "/contrib/man/jail.toml.5");
  for (std::string path : key_paths()) {
    if (path.ends_with("[]")) path.resize(path.size() - 2);
    const std::string name = path.substr(path.rfind('.') + 1);
    CAPTURE(name);
    const bool told = page.find(".It Cm " + name + "\n") != std::string::npos ||
                      page.find("[" + name + "]") != std::string::npos;
    CHECK(told);
  }
}

TEST_CASE("every manifest, bundle and group that ships is well") {
  const Instance instance = shipped();
  const auto known = names(instance);
  REQUIRE(std::find(known.begin(), known.end(), "named") != known.end());
  for (const std::string& name : known) {
    CAPTURE(name);
    const auto loaded = load(instance, name);
    INFO((loaded ? "" : loaded.error().message));
    REQUIRE(loaded);
    CHECK(check_references(instance, *loaded).empty());
  }
  const auto bundles = load_bundles(instance);
  INFO((bundles ? "" : bundles.error().message));
  REQUIRE(bundles);
  CHECK(bundles->size() >= 7);
  CHECK(load_bundle(instance, "libgcc")->libraries == std::vector<std::string>{"libgcc_s.so.1"});
}

TEST_CASE("named's calls are in the groups that its manifest names, and clone3 is in none") {
  const Instance instance = shipped();
  std::set<std::string> allowed;
  const auto named = load(instance, "named");
  REQUIRE(named);
  for (const std::string& group : named->sandbox.syscalls) {
    const auto calls = load_syscall_group(instance, group);
    REQUIRE(calls);
    allowed.insert(calls->begin(), calls->end());
  }
  // Traced from start to stop with updates and signing; setuid and its family are of a start as root only.
  for (const char* call : {"accept4",
                           "access",
                           "arch_prctl",
                           "bind",
                           "brk",
                           "capget",
                           "capset",
                           "chdir",
                           "clock_nanosleep",
                           "clone",
                           "close",
                           "connect",
                           "epoll_create1",
                           "epoll_ctl",
                           "epoll_wait",
                           "eventfd2",
                           "execve",
                           "exit",
                           "exit_group",
                           "fchmod",
                           "fcntl",
                           "fsync",
                           "futex",
                           "getcwd",
                           "getdents64",
                           "getegid",
                           "geteuid",
                           "getgid",
                           "getpeername",
                           "getpid",
                           "getrandom",
                           "getsockname",
                           "getsockopt",
                           "getuid",
                           "ioctl",
                           "kill",
                           "listen",
                           "lseek",
                           "madvise",
                           "mmap",
                           "mprotect",
                           "munmap",
                           "newfstatat",
                           "open",
                           "openat",
                           "pipe2",
                           "prctl",
                           "pread64",
                           "prlimit64",
                           "read",
                           "readlink",
                           "recvmmsg",
                           "recvmsg",
                           "rename",
                           "rseq",
                           "rt_sigaction",
                           "rt_sigprocmask",
                           "rt_sigtimedwait",
                           "sched_getaffinity",
                           "sendmmsg",
                           "sendmsg",
                           "sendto",
                           "set_robust_list",
                           "set_tid_address",
                           "setsockopt",
                           "socket",
                           "sysinfo",
                           "umask",
                           "uname",
                           "unlink",
                           "write",
                           "writev"}) {
    CAPTURE(call);
    CHECK(allowed.contains(call));
  }
  CHECK_FALSE(allowed.contains("setuid"));
  for (const std::string& group : list_data(instance, "syscalls")) {
    const auto calls = load_syscall_group(instance, group);
    REQUIRE(calls);
    CHECK(std::is_sorted(calls->begin(), calls->end()));
    for (const char* never :
         {"clone3", "io_uring_setup", "mount", "ptrace", "bpf", "unshare", "setns", "open_by_handle_at"})
      CHECK_FALSE(std::binary_search(calls->begin(), calls->end(), std::string(never)));
  }
}

TEST_CASE("groups include each other, even in a ring; what is missing is named") {
  const test::Manifests m;
  m.write("vendor/syscalls/a.toml",
          "version = 1\ndescription = \"\"\ncalls = [\"read\"]\ninclude = [\"@b\"]\n");
  m.write("vendor/syscalls/b.toml",
          "version = 1\ndescription = \"\"\ncalls = [\"close\", \"open\"]\ninclude = [\"@a\"]\n");
  CHECK(*load_syscall_group(m.instance, "@a") == std::vector<std::string>{"close", "open", "read"});
  m.write("etc/syscalls/b.toml", "version = 1\ndescription = \"\"\ninclude = [\"@c\"]\n");
  CHECK(load_syscall_group(m.instance, "@a").error().message ==
        "syscalls/a.toml: include @b: syscalls/b.toml: include @c: there is no syscall group 'c'");
  m.write("etc/syscalls/b.toml", "version = 1\ncals = []\n");
  CHECK(load_syscall_group(m.instance, "@b").error().exit == Exit::manifest);
  CHECK(load_syscall_group(m.instance, "@../a").error().exit == Exit::no_input);
  CHECK(load_bundle(m.instance, "../syscalls/a").error().exit == Exit::no_input);
  m.write("vendor/bundles/x.toml", "version = 1\ndescription = \"\"\nlibraries = [\"a/b\"]\nfile = 1\n");
  CHECK(load_bundles(m.instance).error().message ==
        "bundles/x.toml:3:14: libraries[0]: 'a/b' is not a soname or an absolute path\n"
        "bundles/x.toml:4:1: unknown key 'file' in the bundle; did you mean 'files'?");
}
