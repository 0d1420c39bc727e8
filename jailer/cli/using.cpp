#include "jailer/cli/using.h"

#include <algorithm>
#include <filesystem>

#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/control/client.h"
#include "supervisor/spec/generation.h"
#include "supervisor/spec/launch_spec.h"

namespace jail::cli {
namespace {

namespace fs = std::filesystem;

bool holds(const fs::path& directory, const fs::path& path) {
  return std::mismatch(directory.begin(), directory.end(), path.begin(), path.end()).first == directory.end();
}

/// As it is written, and where its links lead.
std::vector<fs::path> both_names(const std::string& text) {
  std::error_code error;
  std::vector<fs::path> names{fs::absolute(text, error).lexically_normal()};
  if (!names.front().has_filename()) names.front() = names.front().parent_path();  // a slash at the end
  const fs::path real = fs::canonical(text, error);
  if (!error && real != names.front()) names.push_back(real);
  return names;
}

bool shows(const LaunchSpec& spec, const std::vector<fs::path>& wanted) {
  const auto shown = [&wanted](const Mount& mount) {
    if (mount.kind != Mount::Kind::bind || mount.writable) return false;
    for (const fs::path& source : both_names(mount.source))
      for (const fs::path& path : wanted)
        if (holds(source, path) || holds(path, source)) return true;
    return false;
  };
  return std::any_of(spec.mounts.begin(), spec.mounts.end(), shown);
}

Result<LaunchSpec> running_spec(const Instance& instance, const control::ServiceStatus& service) {
  JAIL_TRY(generation, generation::open_number(instance, service.name, service.generation));
  return read_launch_spec(generation);
}

}  // namespace

Result<std::vector<std::string>> services_using(const Instance& instance,
                                                const std::vector<std::string>& paths) {
  std::vector<fs::path> wanted;
  for (const std::string& path : paths) {
    std::error_code error;
    if (!fs::exists(path, error))
      return fail(Exit::no_input, "{}: {}", quote(path), error ? error.message() : "there is no such file");
    const auto names = both_names(path);
    wanted.insert(wanted.end(), names.begin(), names.end());
  }
  JAIL_TRY(answer, control::ask(instance, {"status", {}, true}));
  std::vector<std::string> found;
  for (const control::ServiceStatus& service : answer.services) {
    if (service.pid == 0) continue;
    JAIL_TRY(spec, running_spec(instance, service));
    if (shows(spec, wanted)) found.push_back(service.name);
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace jail::cli
