// A directory of manifests that lives as long as a test.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "jailer/manifest/reader.h"

namespace jail::test {

inline constexpr const char* least = R"(version = 1
[tree]
binaries = ["/usr/sbin/d"]
users = ["u"]
[service]
command = ["/usr/sbin/d"]
user = "u"
)";

/// Three manifest directories, weakest first: vendor, run, etc.
class Manifests {
 public:
  Manifests() {
    std::string pattern = (std::filesystem::temp_directory_path() / "jail-manifest-XXXXXX").string();
    root = ::mkdtemp(pattern.data());
    for (const char* name : {"vendor", "run", "etc"}) instance.manifest_dirs.push_back(root + "/" + name);
  }
  ~Manifests() { std::filesystem::remove_all(root); }
  Manifests(const Manifests&) = delete;
  Manifests& operator=(const Manifests&) = delete;

  void write(const std::string& path, const std::string& text) const {
    const std::filesystem::path full = root + "/" + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full, std::ios::binary) << text;
  }
  void mask(const std::string& path) const {
    const std::filesystem::path full = root + "/" + path;
    std::filesystem::create_directories(full.parent_path());
    std::filesystem::create_symlink("/dev/null", full);
  }

  /// The problems of `text` as the manifest d, one a line; empty if it is well.
  [[nodiscard]] std::string problems(const std::string& text) const {
    write("vendor/d.toml", text);
    const auto loaded = manifest::load(instance, "d");
    return loaded ? std::string() : loaded.error().message;
  }

  std::string root;
  Instance instance;
};

/// The project's own directory.
inline std::string source_dir() {
  return JAIL_SOURCE_DIR;
}

}  // namespace jail::test
