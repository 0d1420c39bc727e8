// What every verb of `jail` gets, and how it answers: results on stdout, talk on stderr, the exit status from
// the Error.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "jailer/cli/cli11.h"
#include "supervisor/base/error.h"
#include "supervisor/spec/instance.h"

namespace jail::cli {

/// The options that all verbs share, parsed before a verb runs.
struct Context {
  std::optional<std::string> home;
  std::optional<std::string> manifests;
  std::string root = "/";
  bool json = false;
  bool quiet = false;
  bool verbose = false;
  std::vector<std::string> behind;  ///< the words behind "--", word for word: the command of `exec`
  Instance instance;                ///< from home and manifests

  /// What the chosen verb does; set by its CLI11 callback, run by main after parsing. The status is Exit's.
  std::function<int()> run;
};

/// Prints "jail: MESSAGE" and the hint on stderr; returns the exit status to end with.
int report(const Error& error);

/// The name of the jail that a command line means by `name_or_path`: itself, or the stem of a manifest's path
/// (one that holds a '/' or ends in .toml). Exit::usage for what cannot be a name.
[[nodiscard]] Result<std::string> jail_name(const std::string& name_or_path);

/// Declares a verb: `add_verb(app, context, "verify", "Compare a jail with its lock")`. The caller adds
/// options and sets `context.run` in the callback.
CLI::App* add_verb(CLI::App& app, Context& context, const std::string& name, const std::string& description);

}  // namespace jail::cli
