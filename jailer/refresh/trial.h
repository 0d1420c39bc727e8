// A service on trial: it is changed over to its jail's current generation, and must show that it serves.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/control/protocol.h"
#include "supervisor/spec/instance.h"
#include "supervisor/spec/launch_spec.h"

namespace jail::refresh {

/// How a trial ended.
struct Verdict {
  enum class Kind : std::uint8_t {
    serves,
    fails,        ///< it does not come up, does not stay up, or its check fails
    refused,      ///< jaild did not restart it (its check_config says no): what ran before runs on
    stopped,      ///< somebody stopped it meanwhile: that is not undone
    interrupted,  ///< we were told to stop; what jaild was asked for goes on
  };
  Kind kind = Kind::fails;
  std::string why;                 ///< of all but serves
  std::vector<std::string> lines;  ///< what the daemon, or its check, says of it
};

/// What jaild says of the service; nothing where no jaild runs. An error where one runs and does not answer.
[[nodiscard]] Result<std::optional<control::ServiceStatus>> status_of(const Instance& instance,
                                                                      const std::string& name);

/// Whether the service runs, or jaild tries to have it run.
[[nodiscard]] bool runs(const control::ServiceStatus& service);

struct TrialOptions {
  /// So long it has to stay up, ready and checked. Nothing: a moment where it has no [check], else not at
  /// all.
  std::optional<std::chrono::milliseconds> grace;
  int interrupt = -1;   ///< can be read when we are to stop
  bool insist = false;  ///< where a restart is refused, stop and start
};

/// Why the service, which is ready, does not pass its [check] even before anything is changed; empty where it
/// does. (Its command may be what is broken: it is the host's, and loads the host's libraries.)
[[nodiscard]] std::string ask_before(const Instance& instance, const std::string& name, int interrupt);

/// Restarts `name` into the current generation, which is `number` and has the launch spec `spec`; waits until
/// it is ready; then has its [check] pass once, or sees it stay up for a while. One that is ready in it
/// already is asked only.
[[nodiscard]] Verdict put_on_trial(const Instance& instance, const std::string& name, unsigned long number,
                                   const LaunchSpec& spec, const TrialOptions& options);

}  // namespace jail::refresh
