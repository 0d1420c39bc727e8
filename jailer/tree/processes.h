// Which processes live in which jail: what `jail ps` shows.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/spec/instance.h"

namespace jail {

struct JailProcess {
  std::string jail;
  unsigned long generation = 0;  ///< whose tree it lives in
  unsigned long current = 0;     ///< that a restart would take; 0: none
  pid_t pid = 0;
  uid_t uid = 0;           ///< effective
  std::string command;     ///< its arguments with blanks between, or its name in brackets; as it says
  std::int64_t since = 0;  ///< when it was started, seconds since 1970
  [[nodiscard]] bool old() const { return generation != current; }
};

/// The processes of the jails `names`, from one look over /proc, by name, generation and pid: those that have
/// a generation's tree as their root, and those that share a mount namespace with these (a daemon may go on
/// to chroot(2) itself). A running jaild is not needed. One that ends meanwhile is left out.
[[nodiscard]] Result<std::vector<JailProcess>> processes_of(const Instance& instance,
                                                            const std::vector<std::string>& names);

/// Every name below STATE/jails, built or not, sorted.
[[nodiscard]] Result<std::vector<std::string>> jails_there(const Instance& instance);

}  // namespace jail
