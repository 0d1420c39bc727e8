#include "jailer/manifest/references.h"

namespace jail::manifest {

std::vector<Problem> check_references(const Instance& instance, const Manifest& manifest) {
  std::vector<Problem> problems;
  const auto add = [&](const std::string& path, const Error& error) {
    problems.push_back({manifest.where(path) + path + ": " + error.message});
  };
  for (std::size_t i = 0; i < manifest.tree.include.size(); ++i)
    if (auto bundle = load_bundle(instance, manifest.tree.include[i]); !bundle)
      add(fmt::format("tree.include[{}]", i), bundle.error());
  for (std::size_t i = 0; i < manifest.sandbox.syscalls.size(); ++i) {
    if (!manifest.sandbox.syscalls[i].starts_with('@')) continue;
    if (auto calls = load_syscall_group(instance, manifest.sandbox.syscalls[i]); !calls)
      add(fmt::format("sandbox.syscalls[{}]", i), calls.error());
  }
  return problems;
}

}  // namespace jail::manifest
