// The control protocol: one SOCK_SEQPACKET message a request, one or more messages an answer, each a JSON
// object of at most max_message bytes. jaild checks the peer by SO_PEERCRED. The shapes here are also what
// `jail status --json` prints.
//
// Every message has "v", the version. Unknown keys are ignored, so that an older side understands a newer
// one; a wrong type is an error. An answer that needs several messages has "more": true in all but the last;
// the lists are divided among them, everything else stands in the first.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/error.h"

namespace jail::control {

inline constexpr std::size_t max_message = 65536;
/// Enough for what a daemon says of a mistake in its configuration, and the advice behind it (ISC's twelve
/// lines).
inline constexpr std::size_t most_last_lines = 16;

/// {"v":1,"verb":"start","names":["named"],"wait":true}
struct Request {
  static constexpr int current_version = 1;
  std::string verb;  ///< start stop restart reload check enable disable status ping shutdown
  std::vector<std::string> names;
  bool wait = true;  ///< start, restart: answer when ready or failed; stop: when stopped
};

/// One service as status shows it.
struct ServiceStatus {
  std::string name;
  std::string state;  ///< stopped starting ready stopping backoff failed
  bool enabled = false;
  std::string check;                     ///< its last run: ok, failed; open: none yet; empty: has none
  int pid = 0;                           ///< of the daemon, in jaild's pid namespace; 0: none
  std::uint64_t generation = 0;          ///< that runs, or would
  std::uint64_t current_generation = 0;  ///< that a restart would take
  std::uint64_t uptime_ms = 0;
  std::uint64_t restarts = 0;
  std::uint64_t next_start_ms = 0;  ///< backoff: until the next try
  /// Of the last end or failure: "killed by SIGKILL", "mount /dev/null: Operation not permitted".
  std::string reason;
  std::string check_failure;            ///< failed: why
  std::vector<std::string> last_lines;  ///< of its log, in failed, backoff and a slow starting; in ready the
                                        ///< errors that it wrote soon after its start or reload
  std::vector<std::string> not_enforced;
  std::vector<std::string> provides;  ///< beyond its name
  bool manifest_edited = false;       ///< since the build; the client finds out, jaild leaves it false
  std::vector<std::string> stale;     ///< what it was marked for, and how refreshes went; likewise
};

/// What a request did to one name. `exit` 0 is success.
struct Outcome {
  std::string name;
  int exit = 0;
  std::string message;  ///< of a failure, or ""
  std::string hint;
  std::vector<std::string> lines = {};  ///< what the daemon, or its check, says of it
};

struct Answer {
  int exit = 0;         ///< the worst of the outcomes
  std::string message;  ///< an error of the request itself
  std::string hint;
  std::vector<Outcome> outcomes;
  std::vector<ServiceStatus> services;  ///< status
  int jaild_pid = 0, keeper_pid = 0, relay_pid = 0;
};

[[nodiscard]] std::string to_json(const Request& request);
[[nodiscard]] std::string to_json(const Answer& answer);
[[nodiscard]] Result<Request> request_from_json(std::string_view text);
[[nodiscard]] Result<Answer> answer_from_json(std::string_view text);

/// `answer` as it goes over the socket: each message is within max_message, whatever the services said (their
/// words are cut where they must be).
[[nodiscard]] std::vector<std::string> to_messages(const Answer& answer);

/// Adds one received message to `answer`; `first` tells whether it is the first of its answer. True when more
/// follow.
[[nodiscard]] Result<bool> add_message(Answer& answer, std::string_view text, bool first);

}  // namespace jail::control
