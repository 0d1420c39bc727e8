#include "supervisor/base/companion.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <string_view>

namespace jail {

Result<std::string> own_program() {
  std::array<char, PATH_MAX> path{};
  const ssize_t size = ::readlink("/proc/self/exe", path.data(), path.size() - 1);
  if (size <= 0) return fail_errno(Exit::host, errno, "/proc/self/exe: cannot read (is /proc mounted?)");
  std::string program(path.data(), static_cast<std::size_t>(size));
  constexpr std::string_view deleted = " (deleted)";  // an upgrade: the new program has the name
  if (program.ends_with(deleted)) program.resize(program.size() - deleted.size());
  return program;
}

Result<std::string> companion(const std::string& own, const std::string& name) {
  for (const std::string& dir : {own.substr(0, own.rfind('/')), std::string(JAIL_LIBEXEC_DIR)}) {
    std::string path = dir + "/" + name;
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return with_hint(fail(Exit::host, "{} is neither beside {} nor in {}", name, own, JAIL_LIBEXEC_DIR),
                   "the programs of jail are installed together");
}

Result<UniqueFd> open_companion(const std::string& own, const std::string& name) {
  JAIL_TRY(path, companion(own, name));
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(Exit::host, errno, "{}: cannot open", path);
  return fd;
}

}  // namespace jail
