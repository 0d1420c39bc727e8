// The merged manifest as people read it.
#pragma once

#include <string>

#include "jailer/manifest/model.h"

namespace jail::manifest {

/// TOML, with the place of each value in a comment behind it: `user = "bind"   # named.toml:41`. With
/// `defaults` also what no file gave, marked "default". Without them the text is a manifest that reads back
/// as the same one.
[[nodiscard]] std::string to_text(const Manifest& manifest, bool defaults);

}  // namespace jail::manifest
