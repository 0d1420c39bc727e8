// A launch whose system calls can be made to fail, one at a time and in one task alone. (strace -f counts the
// calls of each task by themselves, so that it fails the init's nth call before it comes to the daemon's.)
#pragma once

#include <string>
#include <vector>

#include "sandbox_house.h"

namespace jail::test {

enum class Task : std::uint8_t { launcher, init, daemon, other };

/// What happens to one step of `task`: a call of its set-up, the `nth` of them from 1; 0: nothing.
struct Fault {
  Task task = Task::other;
  int nth = 0;
  enum class Kind : std::uint8_t { refused, late } kind = Kind::refused;  ///< EPERM, or 100 ms later
};

struct Traced {
  std::vector<std::string> steps;  ///< the names of the calls of `Fault::task`, up to the fault
  bool struck = false;             ///< the fault has happened
  int status = -1;                 ///< of the launcher program, as waitpid(2) gives it
};

/// Launches the house's generation (House::prepare has written it) by the launcher program.
Traced run_traced(const House& house, const Fault& fault);

}  // namespace jail::test
