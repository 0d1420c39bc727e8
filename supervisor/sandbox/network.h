// Network namespaces with a name: /run/netns/NAME, as ip-netns(8) makes them.
#pragma once

#include <string>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"

namespace jail::sandbox {

/// Opens the network namespace `name`, fit for setns(2). Followed is no link; what is opened is proved to be
/// a network namespace, in a directory that only root can change. Looked up anew for each launch: one that
/// was deleted and made again is another.
[[nodiscard]] Result<UniqueFd> open_named_network(const std::string& name);

}  // namespace jail::sandbox
