// The client's side of the control socket.
#pragma once

#include "supervisor/base/error.h"
#include "supervisor/control/protocol.h"
#include "supervisor/spec/instance.h"

namespace jail::control {

/// Sends `request` to the jaild of `instance` and waits for its answer. Exit::unavailable, with the hint how
/// to start jaild, when none listens. A jaild that is replaced meanwhile (killed, upgraded) is asked again
/// for up to 10 s.
[[nodiscard]] Result<Answer> ask(const Instance& instance, const Request& request);

}  // namespace jail::control
