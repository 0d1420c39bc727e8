// The client's side of the control socket.
#pragma once

#include "supervisor/base/error.h"
#include "supervisor/control/protocol.h"
#include "supervisor/spec/instance.h"

namespace jail::control {

/// Sends `request` to the jaild of `instance` and waits for its answer. Exit::unavailable, with the hint how
/// to start jaild, when none listens. A jaild that is replaced meanwhile (killed, upgraded) is asked again
/// for up to 10 s. Exit::busy as soon as `interrupt`, where it is a descriptor, can be read: what was asked
/// for goes on, and nobody waits.
[[nodiscard]] Result<Answer> ask(const Instance& instance, const Request& request, int interrupt = -1);

}  // namespace jail::control
