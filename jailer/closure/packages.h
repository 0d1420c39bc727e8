// Which Debian package owns a file: dpkg's own database, read as files (dpkg-query would be a program to run,
// and slow). Used for the lock, the SBOM and staleness.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/error.h"

namespace jail {

struct Owner {
  std::string package;       ///< "libssl3", without the architecture
  std::string version;       ///< "3.0.17-1~deb12u2"
  std::string architecture;  ///< "amd64", "all"
  bool operator==(const Owner&) const = default;
};

/// The version of each installed package of a root, by its name and by "NAME:ARCHITECTURE". Nothing where
/// there is no dpkg.
[[nodiscard]] Result<std::map<std::string, std::string>> installed_versions(const std::string& root);

/// The owners of a set of paths in one root. Lists are read once and whole; what is not asked for is not
/// kept.
class PackageDatabase {
 public:
  /// Finds the owners of `paths` (absolute in `root`; Entry::source of a plan). Both spellings of a merged
  /// /usr are understood (/lib/x and /usr/lib/x, where ROOT/lib is a link), diversions too. A root without
  /// dpkg has no owners: that is no error. A database that cannot be read is Exit::io, a malformed one is
  /// read as far as it makes sense.
  [[nodiscard]] static Result<PackageDatabase> open(const std::string& root,
                                                    const std::vector<std::string>& paths);

  /// The owner of `path`, one of open()'s: nothing if no installed package has it.
  [[nodiscard]] std::optional<Owner> owner(const std::string& path) const;

 private:
  std::map<std::string, Owner> owners_;  ///< by path as asked for
};

}  // namespace jail
