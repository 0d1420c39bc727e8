#include "supervisor/spec/instance.h"

#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <filesystem>

#include "supervisor/base/quote.h"

namespace jail {
namespace {

std::optional<std::string> from_environment(const char* name) {
  const char* value = ::secure_getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

Result<std::string> absolute(const std::string& path) {
  if (path.empty()) return fail(Exit::usage, "an empty path was given for --home or --manifests");
  std::error_code error;
  std::string full = std::filesystem::absolute(path, error).lexically_normal().string();
  if (error) return fail(Exit::io, "{}: {}", quote(path), error.message());
  while (full.size() > 1 && full.back() == '/') full.pop_back();
  return full;
}

bool valid_part(std::string_view part) {
  if (part.empty()) return false;
  auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  if (!plain(part.front())) return false;
  for (const char c : part)
    if (!plain(c) && c != '.' && c != '_' && c != '-') return false;
  return true;
}

}  // namespace

Result<Instance> find_instance(std::optional<std::string> home, std::optional<std::string> manifests) {
  if (!home) home = from_environment("JAIL_HOME");
  if (!manifests) manifests = from_environment("JAIL_MANIFESTS");
  Instance instance;
  instance.manifest_dirs = {std::string(JAIL_VENDOR_DIR) + "/manifests", "/run/jail/manifests",
                            "/etc/jail/manifests"};
  if (home) {
    JAIL_TRY(full, absolute(*home));
    instance.home = full;
    instance.state = full + "/state";
    instance.run = full + "/run";
    instance.log = full + "/log";
    instance.etc = full + "/config";
    instance.manifest_dirs.push_back(full + "/manifests");
  } else {
    instance.state = "/var/lib/jail";
    instance.run = "/run/jail";
    instance.log = "/var/log/jail";
    instance.etc = "/etc/jail";
  }
  if (manifests) {
    JAIL_TRY(full, absolute(*manifests));
    instance.manifest_dirs.push_back(full);
  }
  return instance;
}

bool valid_name(std::string_view name) {
  if (name.size() > 64) return false;
  const std::size_t at = name.find('@');
  if (at == std::string_view::npos) return valid_part(name);
  return valid_part(name.substr(0, at)) && valid_part(name.substr(at + 1));
}

}  // namespace jail
