// The users and groups that a manifest names: which of them the host lacks, and making these.
#pragma once

#include <string>
#include <vector>

#include "jailer/closure/planner.h"
#include "jailer/manifest/model.h"
#include "supervisor/base/error.h"

namespace jail::init {

struct Names {
  std::vector<std::string> users;
  std::vector<std::string> groups;
};

/// Each user and group of the manifest, once, in the order in which they are named; "root" and the group that
/// a user brings with him are not among them.
[[nodiscard]] Names accounts_of(const manifest::Manifest& manifest);

/// Those that `accounts` does not have.
[[nodiscard]] Names missing_from(const Accounts& accounts, const Names& names);

/// The arguments by which useradd makes a system user who cannot log in, with a group of the same name: the
/// one that is there, or a new one.
[[nodiscard]] std::vector<std::string> useradd_words(const Accounts& accounts, const std::string& name);
[[nodiscard]] std::vector<std::string> groupadd_words(const std::string& name);

}  // namespace jail::init
