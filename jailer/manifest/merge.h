// Drop-ins: one value tree laid over another.
#pragma once

#include "jailer/manifest/binder.h"
#include "jailer/manifest/problems.h"
#include "jailer/manifest/value.h"

namespace jail::manifest {

/// Lays `overlay` (a drop-in) over `base`: first its [remove] takes away, then scalars and commands replace,
/// lists append what they do not hold yet, arrays of tables replace the keys of the entry with the same
/// identity or append. Keys that are not known, and values of the wrong kind, are left to the binder, which
/// names them.
void merge(Value& base, const Value& overlay, const Key& keys, Problems& problems);

/// Replaces %i by `instance` and %% by % in every string; any other %x is a problem.
void substitute(Value& value, const std::string& instance, Problems& problems);

}  // namespace jail::manifest
