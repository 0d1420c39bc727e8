// The host's own programs, run for what only they do rightly: useradd, systemctl.
#pragma once

#include <string>
#include <vector>

#include "supervisor/base/error.h"

namespace jail::init {

struct Finished {
  int status = 0;      ///< 0 to 255, or 128 and the signal
  std::string output;  ///< both streams, 64 KiB at most, without blanks at its end
};

/// Runs the program `name` from one of the system's directories, by no shell, with a clean environment and no
/// descriptor of ours; waits for its end. Exit::host where there is none.
[[nodiscard]] Result<Finished> run_program(const std::string& name, const std::vector<std::string>& words);

/// The same for the program at `path`, which reads `input`: 64 KiB at most.
[[nodiscard]] Result<Finished> run_path(const std::string& path, const std::vector<std::string>& words,
                                        const std::string& input);

/// As run_program(), and a status other than 0 is an error in the program's own words.
[[nodiscard]] Result<void> demand_program(const std::string& name, const std::vector<std::string>& words);

}  // namespace jail::init
