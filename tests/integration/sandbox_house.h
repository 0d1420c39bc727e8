// A hand-made generation around the static probe, and what became of a launch of it.
#pragma once

#include <linux/filter.h>

#include <filesystem>
#include <string>
#include <vector>

#include "supervisor/sandbox/sandbox.h"

namespace jail::test {

/// Where our programs are: JAIL_BIN, or the directory of this one.
std::string program(const std::string& name);

/// A directory below /tmp with a generation in it; gone with the object.
struct House {
  std::filesystem::path top;  ///< top/gen is the generation, top/volume a directory of the host
  LaunchSpec spec;
  std::vector<sock_filter> filter;  ///< allows everything

  House();
  ~House();
  House(const House&) = delete;
  House& operator=(const House&) = delete;

  [[nodiscard]] std::filesystem::path tree() const { return top / "gen/tree"; }
  /// The probe with these verbs as the command.
  void ask(std::vector<std::string> verbs);
  /// Writes launch.json and filter.bpf, and prepares.
  [[nodiscard]] Result<sandbox::Prepared> prepare() const;
};

/// The filter that a network server of ours gets: the groups that named's manifest asks for.
std::vector<sock_filter> daemon_filter();

/// A running launch with stdout and stderr on one pipe.
struct Running {
  sandbox::Launched launched;
  UniqueFd output;
};

/// All that a launch told.
struct Outcome {
  bool failed = false;
  std::string step;
  int error = 0;
  bool running = false;
  pid_t pid = -1;
  bool exited = false;
  int status = 0;
  std::string output;

  [[nodiscard]] bool says(const std::string& line) const;  ///< one of the lines of the output
  /// What follows `start` in each line that begins with it.
  [[nodiscard]] std::vector<std::string> lines(const std::string& start) const;
};

/// With jail-init, unless `inputs` say another.
Result<Running> start(const sandbox::Prepared& prepared, sandbox::LaunchInputs inputs = {});

/// The next report, waited for up to ten seconds.
Result<sandbox::Report> next_report(const Running& running);

/// Reads reports and output to their ends (ten seconds at most each), reaps the init.
Outcome finish(Running running);

/// prepare, start, finish; requires that the first two succeed.
Outcome live(const House& house, sandbox::LaunchInputs inputs = {});

}  // namespace jail::test
