#include "jailer/manifest/references.h"

namespace jail::manifest {

std::vector<Problem> check_references(const Instance& instance, const Manifest& manifest) {
  std::vector<Problem> problems;
  const auto add = [&](const std::string& path, const Error& error) {
    problems.push_back({manifest.where(path) + path + ": " + error.message});
  };
  const std::pair<const char*, const std::vector<std::string>&> lists[] = {
      {"include", manifest.tree.include}, {"exclude", manifest.tree.exclude}};
  for (const auto& [key, names] : lists)
    for (std::size_t i = 0; i < names.size(); ++i)
      if (auto bundle = load_bundle(instance, names[i]); !bundle)
        add(fmt::format("tree.{}[{}]", key, i), bundle.error());
  for (std::size_t i = 0; i < manifest.sandbox.syscalls.size(); ++i) {
    if (!manifest.sandbox.syscalls[i].starts_with('@')) continue;
    if (auto calls = load_syscall_group(instance, manifest.sandbox.syscalls[i]); !calls)
      add(fmt::format("sandbox.syscalls[{}]", i), calls.error());
  }
  return problems;
}

}  // namespace jail::manifest
