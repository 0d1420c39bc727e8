// Manifests from disk: the search order, the strict TOML reader, drop-ins.
#pragma once

#include <string>
#include <vector>

#include "jailer/manifest/model.h"
#include "supervisor/base/error.h"
#include "supervisor/spec/instance.h"

namespace jail::manifest {

/// One thing wrong with a manifest. `text` begins "named.toml:14:3: " and ends without a newline.
struct Problem {
  std::string text;
};

/// A manifest, or every problem of all its files at once (Error.message: one a line; Exit::manifest).
/// `name_or_path` is a NAME, looked up along instance.manifest_dirs, or a path (it holds a '/' or ends in
/// .toml): its drop-ins are then those of PATH.d/ and of the search path. NAME@INSTANCE reads NAME@.toml, %i
/// replaced. Exit::no_input if there is no such manifest, with the places that were looked at and the nearest
/// known name.
[[nodiscard]] Result<Manifest> load(const Instance& instance, const std::string& name_or_path);

/// Every manifest that can be named, each once, sorted; masked ones (links to /dev/null) are left out.
[[nodiscard]] std::vector<std::string> names(const Instance& instance);

/// The bundle `name` of the strongest directory that has bundles/NAME.toml.
[[nodiscard]] Result<Bundle> load_bundle(const Instance& instance, const std::string& name);

/// All bundles that can be found, sorted by name (for those that join by import).
[[nodiscard]] Result<std::vector<Bundle>> load_bundles(const Instance& instance);

/// The calls of the syscall group `name` ("@default" -> syscalls/default.toml of the strongest directory). A
/// group may include others; the answer is sorted and without doubles.
[[nodiscard]] Result<std::vector<std::string>> load_syscall_group(const Instance& instance,
                                                                  const std::string& name);

/// Words for jail-probe, as a generation keeps them.
struct FrozenProbe {
  std::string bundle;
  std::string name;
  std::vector<std::string> run;
};

/// The merged manifest as stable, sorted JSON (manifest.json, `jail show --json`): ends in a newline.
[[nodiscard]] std::string to_json(const Manifest& manifest);
/// The same, with "probes".
[[nodiscard]] std::string to_json(const Manifest& manifest, const std::vector<FrozenProbe>& probes);

}  // namespace jail::manifest
