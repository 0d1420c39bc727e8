// The distribution's own units for the service: masked as systemctl mask does it, which needs no running
// systemd.
#pragma once

#include <string>
#include <vector>

#include "supervisor/base/error.h"

namespace jail::init {

inline constexpr const char* nowhere = "/dev/null";

/// Where a link to /dev/null masks `unit`.
[[nodiscard]] std::string mask_path(const std::string& unit);

/// Whether this machine has systemd's directory of units of the admin's, or runs systemd.
[[nodiscard]] bool has_systemd();
[[nodiscard]] bool runs_systemd();

/// The script by which a machine without systemd starts what `unit` names; empty if there is none.
[[nodiscard]] std::string init_script(const std::string& unit);

/// Those of `units` that run; none where systemd does not.
[[nodiscard]] Result<std::vector<std::string>> active(const std::vector<std::string>& units);
[[nodiscard]] Result<void> stop(const std::vector<std::string>& units);
/// Has a running systemd read its units again.
[[nodiscard]] Result<void> reread_units();

}  // namespace jail::init
