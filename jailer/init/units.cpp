#include "jailer/init/units.h"

#include <sys/stat.h>

#include "jailer/init/program.h"

namespace jail::init {
namespace {

bool is_directory(const char* path) {
  struct stat status {};
  return ::stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

}  // namespace

std::string mask_path(const std::string& unit) {
  return "/etc/systemd/system/" + unit;
}

bool runs_systemd() {
  return is_directory("/run/systemd/system");
}

bool has_systemd() {
  return is_directory("/etc/systemd") || runs_systemd();
}

std::string init_script(const std::string& unit) {
  std::string path = "/etc/init.d/" + unit.substr(0, unit.rfind('.'));
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) ? path : std::string();
}

Result<std::vector<std::string>> active(const std::vector<std::string>& units) {
  std::vector<std::string> found;
  if (!runs_systemd()) return found;
  for (const std::string& unit : units) {
    JAIL_TRY(finished, run_program("systemctl", {"is-active", "--quiet", unit}));
    if (finished.status == 0) found.push_back(unit);
  }
  return found;
}

Result<void> stop(const std::vector<std::string>& units) {
  if (units.empty()) return {};
  std::vector<std::string> words = {"stop"};
  words.insert(words.end(), units.begin(), units.end());
  return demand_program("systemctl", words);
}

Result<void> reread_units() {
  if (!runs_systemd()) return {};
  return demand_program("systemctl", {"daemon-reload"});
}

}  // namespace jail::init
