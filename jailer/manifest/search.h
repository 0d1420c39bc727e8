// Where manifests, drop-ins, bundles and syscall groups are found.
#pragma once

#include <string>
#include <vector>

#include "jailer/witness/looks.h"
#include "supervisor/base/error.h"
#include "supervisor/spec/instance.h"

namespace jail::manifest {

/// A file to read: where it is, and what messages call it ("named.toml", "named.toml.d/10-local.toml").
struct Place {
  std::string path;
  std::string shown;
};

/// A manifest and what is laid over it.
struct Located {
  std::string name;      ///< of the jail: "named", "web@eu"
  std::string instance;  ///< "eu" of web@eu, read from web@.toml
  Place file;
  std::vector<Place> drop_ins;  ///< in the order in which they are applied
};

/// Finds NAME along the manifest directories, or takes the path that is given (it holds a '/' or ends in
/// .toml). Exit::no_input with the places that were looked at and the nearest known name.
[[nodiscard]] Result<Located> locate(const Instance& instance, const std::string& name_or_path);

/// Whether `name_or_path` is meant as a path.
[[nodiscard]] bool is_path(const std::string& name_or_path);

/// The strongest KIND/NAME.toml ("bundles", "syscalls"). `what` is for messages: "bundle".
[[nodiscard]] Result<Place> locate_data(const Instance& instance, const std::string& kind,
                                        const std::string& name, const std::string& what);

/// The names of all KIND/*.toml that are not masked, sorted; KIND "" is the manifests themselves.
[[nodiscard]] std::vector<std::string> list_data(const Instance& instance, const std::string& kind);

/// Looks at all that could change what is read for the jail `name`: every manifest directory, and in each its
/// manifest, its drop-ins, and all bundles and syscall groups.
void add_looks(const Instance& instance, const std::string& name, Looks& looks);

}  // namespace jail::manifest
