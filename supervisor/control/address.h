// Where the control socket is, for both of its sides. A socket's address holds 108 bytes, a home may be
// longer: the name is then given relative to a descriptor of its directory, by way of /proc.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <string>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"

namespace jail::control {

struct Address {
  sockaddr_un name{};
  socklen_t length = 0;
  UniqueFd dir;  ///< must stay open while the address is used

  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&name); }
};

/// The address of the file `name` in `dir`, a descriptor that the caller keeps open meanwhile.
[[nodiscard]] Result<Address> address_at(int dir, const std::string& name);

/// The address of `path`, as it is when it is short enough.
[[nodiscard]] Result<Address> address_of(const std::string& path);

}  // namespace jail::control
