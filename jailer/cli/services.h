// What the verbs that talk to jaild share.
#pragma once

#include <string>
#include <vector>

#include "jailer/cli/cli.h"
#include "supervisor/control/protocol.h"

namespace jail::cli {

/// The jails that the words of a command line name; a word may be a path to a manifest.
[[nodiscard]] Result<std::vector<std::string>> jail_names(const std::vector<std::string>& words);

/// Prints an answer that holds outcomes: as JSON, or a line for each (`done` is what happened to those that
/// succeeded: "started"). Returns the exit status.
int print_outcomes(const Context& context, const control::Answer& answer, const std::string& done);

/// How a status is drawn.
struct Screen {
  bool color = false;
  bool verbose = false;
};

/// What `jail status` prints: a line for each service, and below those that have one their problem.
[[nodiscard]] std::string status_text(const control::Answer& answer, Screen screen);

/// "850ms", "12s", "3m12s", "5h03m", "4d07h".
[[nodiscard]] std::string duration_text(std::uint64_t milliseconds);

}  // namespace jail::cli
