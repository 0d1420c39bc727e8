#include "supervisor/control/address.h"

#include <fcntl.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "supervisor/base/quote.h"

namespace jail::control {
namespace {

Result<Address> make(const std::string& path) {
  Address address;
  if (path.size() >= sizeof address.name.sun_path)
    return fail(Exit::config, "{}: too long for the name of a socket", quote(path));
  address.name.sun_family = AF_UNIX;
  std::memcpy(address.name.sun_path, path.c_str(), path.size() + 1);
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return address;
}

}  // namespace

Result<Address> address_at(int dir, const std::string& name) {
  return make(fmt::format("/proc/self/fd/{}/{}", dir, name));
}

Result<Address> address_of(const std::string& path) {
  if (path.size() < sizeof(sockaddr_un::sun_path)) return make(path);
  const std::size_t slash = path.rfind('/');
  UniqueFd dir(::open(path.substr(0, slash).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!dir)
    return fail_errno(errno == EACCES ? Exit::permission : Exit::unavailable, errno, "{}: cannot open",
                      quote(path.substr(0, slash)));
  JAIL_TRY(address, address_at(dir.get(), path.substr(slash + 1)));
  address.dir = std::move(dir);
  return std::move(address);
}

}  // namespace jail::control
