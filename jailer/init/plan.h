// What an init would make, found out before anything is made.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jailer/init/accounts.h"
#include "jailer/init/example.h"
#include "jailer/init/init.h"
#include "jailer/init/record.h"

namespace jail::init {

/// One entry of the file system.
struct Step {
  std::string kind;  ///< as Item's
  std::string path;
  std::string bytes;  ///< of a file, or a link's target
  unsigned mode = 0;
  std::string group = "root";
  Outcome outcome = Outcome::made;
  std::string note;

  /// "directory", "file" or "unit": as Made's.
  [[nodiscard]] std::string record_kind() const;
};

struct Plan {
  std::string name;  ///< of the jail
  std::vector<Step> steps;
  Names accounts;               ///< to make
  std::string missing_program;  ///< of the manifest: its package is not installed
  std::vector<Item> others;     ///< what is left to the admin, or to a build
  std::vector<std::string> next;
};

/// Exit::config if somebody else than root could change what would be laid out.
[[nodiscard]] Result<Plan> make_plan(const Instance& instance, const std::string& name_or_path,
                                     const manifest::Manifest& manifest, const Example& example,
                                     const Accounts& accounts, const Options& options);

/// `jail`, with --home where it was given, and the words of a command.
[[nodiscard]] std::string command_line(const Instance& instance, const std::string& words);

}  // namespace jail::init
