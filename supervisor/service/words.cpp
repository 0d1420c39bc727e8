// How states, times and ends are called.
#include <sys/wait.h>

#include <algorithm>
#include <array>

#include "supervisor/service/machine.h"

namespace jail::service {
namespace {

constexpr std::array<std::string_view, state_count> state_names = {"stopped",  "starting", "ready",
                                                                   "stopping", "backoff",  "failed"};

}  // namespace

std::string_view state_name(State state) {
  return state_names.at(static_cast<std::size_t>(state));
}

std::optional<State> state_from_name(std::string_view name) {
  const auto* const found = std::find(state_names.begin(), state_names.end(), name);
  if (found == state_names.end()) return std::nullopt;
  return static_cast<State>(found - state_names.begin());
}

std::string describe(milliseconds duration) {
  if (duration.count() % 1000 == 0) return fmt::format("{}s", duration.count() / 1000);
  return fmt::format("{}ms", duration.count());
}

std::string describe_exit(int status) {
  if (WIFEXITED(status)) return fmt::format("exited with status {}", WEXITSTATUS(status));
  if (WIFSIGNALED(status)) {
    const std::string name = signal_name(WTERMSIG(status));
    return fmt::format("killed by {}{}", name.empty() ? fmt::format("signal {}", WTERMSIG(status)) : name,
                       WCOREDUMP(status) ? ", core dumped" : "");
  }
  return fmt::format("ended with wait status {:#x}", status);
}

}  // namespace jail::service
