// What the binder's tables know, for those who do not bind: merging, showing, the tests of schema and man
// page.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "jailer/manifest/binder.h"
#include "jailer/manifest/model.h"
#include "jailer/manifest/problems.h"

namespace jail::manifest {

/// syscalls/NAME.toml, before its includes are followed.
struct SyscallGroupFile {
  std::string description;
  std::vector<std::string> calls;
  std::vector<std::string> include;
};

/// All keys of a manifest. Made anew at each call: keep it.
[[nodiscard]] Key manifest_keys();

/// The keys as paths, sorted: "tree.binaries", "volume[].name", "service.restart.limit".
[[nodiscard]] std::vector<std::string> key_paths();

/// Binds a whole tree. `complete` demands the keys without a default. The origins are left in `binder`.
void bind_manifest(Binder& binder, Manifest& manifest, const Value& root);
void bind_bundle(Binder& binder, Bundle& bundle, const Value& root);
void bind_syscall_group(Binder& binder, SyscallGroupFile& group, const Value& root);

/// Puts in the defaults that depend on other values or stand in no member initialiser of the model.
void fill_defaults(Manifest& manifest);

/// The manifest in its own shape and notation: what was given and what is a default alike.
[[nodiscard]] Json show(const Manifest& manifest);

}  // namespace jail::manifest
