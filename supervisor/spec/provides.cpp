#include "supervisor/spec/provides.h"

#include <dirent.h>

#include <algorithm>
#include <memory>
#include <set>

#include "supervisor/base/quote.h"
#include "supervisor/spec/generation.h"
#include "supervisor/spec/launch_spec.h"

namespace jail {
namespace {

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

std::set<std::string> all_of(const Provider& provider) {
  std::set<std::string> all(provider.provides.begin(), provider.provides.end());
  all.insert(provider.name);
  return all;
}

}  // namespace

std::optional<std::string> provided_by_both(const Provider& a, const Provider& b) {
  if (a.name == b.name) return std::nullopt;
  const auto first = all_of(a);
  const auto second = all_of(b);
  const auto both = std::find_if(first.begin(), first.end(),
                                 [&](const std::string& name) { return second.contains(name); });
  return both == first.end() ? std::nullopt : std::optional(*both);
}

std::vector<std::string> provides_of(const Instance& instance, const std::string& name) {
  const auto opened = generation::open_current(instance, name);
  if (!opened) return {};
  auto spec = read_launch_spec(*opened);
  return spec ? std::move(spec->provides) : std::vector<std::string>();
}

std::optional<Error> excluded_by_enabled(const Instance& instance, const std::string& name) {
  const std::unique_ptr<DIR, CloseDir> dir(::opendir(instance.enabled().c_str()));
  std::set<std::string> names;
  while (const dirent* entry = dir ? ::readdir(dir.get()) : nullptr)
    if (valid_name(entry->d_name)) names.insert(entry->d_name);
  const Provider wanted{name, provides_of(instance, name)};
  for (const std::string& other : names)
    if (const auto both = provided_by_both(wanted, {other, provides_of(instance, other)}))
      return Error{Exit::busy,
                   fmt::format("{}: cannot be enabled beside {}, which is: both provide {}", name, other,
                               quote(*both)),
                   fmt::format("run: jail disable {}", other)};
  return std::nullopt;
}

}  // namespace jail
