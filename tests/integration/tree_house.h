// A small house to build in: a tmpfs of the test's own (in a mount namespace of its own), a source root, and
// plans.
#pragma once

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>

#include "catch.h"
#include "jailer/tree/builder.h"

namespace jail::test {

namespace fs = std::filesystem;

inline std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_bytes(const fs::path& path, const std::string& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

class House {
 public:
  House() {
    static const bool apart =
        ::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    REQUIRE(apart);
    char name[] = "/tmp/jail-tree-XXXXXX";
    top = ::mkdtemp(name);
    REQUIRE(::mount("tmpfs", top.c_str(), "tmpfs", 0, "mode=0755,size=256m") == 0);
    instance.state = (top / "state").string();
  }
  ~House() {
    ::umount2(top.c_str(), MNT_DETACH);
    std::error_code ignored;
    fs::remove(top, ignored);
  }
  House(const House&) = delete;
  House& operator=(const House&) = delete;

  void source(const std::string& name, const std::string& bytes) const {
    write_bytes(top / "root" / name, bytes);
  }

  /// Directories, a shared file, a copied one, a generated one and a link.
  [[nodiscard]] Plan plan(const std::string& name, const std::string& text) const {
    Plan plan;
    plan.name = name;
    plan.root = (top / "root").string();
    for (const char* path : {"/", "/a", "/a/b", "/etc"}) add(plan, path, EntryType::directory).mode = 0755;
    add(plan, "/a/big", EntryType::file).source = "/big";
    add(plan, "/a/b/big", EntryType::file).source = "/big";
    add(plan, "/a/b/small", EntryType::file).source = "/small";
    add(plan, "/etc/text", EntryType::file).content = text;
    add(plan, "/etc/link", EntryType::symlink).target = "../a";
    return plan;
  }

  static Entry& add(Plan& plan, const std::string& path, EntryType type) {
    Entry& entry = plan.entries[path];
    entry.path = path;
    entry.type = type;
    entry.mode = 0644;
    entry.why = {{"file", "", ""}};
    return entry;
  }

  [[nodiscard]] Result<BuildResult> build(const Plan& plan, bool force = false) const {
    return jail::build(instance, plan, Frozen{"{}\n", "{}\n", "filter"}, BuildOptions{force});
  }

  /// Of the current generation; an error is a failure of the test.
  [[nodiscard]] std::vector<Difference> differences(const std::string& name) const {
    const auto opened = generation::open_current(instance, name);
    INFO((opened ? std::string() : opened.error().message));
    REQUIRE(opened);
    const auto verified = verify(*opened);
    INFO((verified ? std::string() : verified.error().message));
    REQUIRE(verified);
    return verified->differences;
  }

  fs::path top;
  Instance instance;
};

}  // namespace jail::test
