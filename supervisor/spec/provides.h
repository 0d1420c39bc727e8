// What stands in for what: `provides` of a manifest. A service provides its own name, and what its manifest
// says besides; services that have one such name in common exclude each other: one of them runs, one is
// enabled.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/spec/instance.h"

namespace jail {

/// One service, and what it provides beyond its name.
struct Provider {
  std::string name;
  std::vector<std::string> provides;
};

/// The first name that both provide; nothing where they may run side by side. A service does not exclude
/// itself.
[[nodiscard]] std::optional<std::string> provided_by_both(const Provider& a, const Provider& b);

/// What the current generation of `name` provides; nothing where there is none that can be read.
[[nodiscard]] std::vector<std::string> provides_of(const Instance& instance, const std::string& name);

/// Why `name` cannot be enabled (Exit::busy): a service is that excludes it.
[[nodiscard]] std::optional<Error> excluded_by_enabled(const Instance& instance, const std::string& name);

}  // namespace jail
