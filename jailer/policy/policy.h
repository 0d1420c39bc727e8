// Manifest -> launch spec, syscall groups -> BPF.
#pragma once

#include <string>
#include <vector>

#include "jailer/closure/planner.h"
#include "jailer/manifest/model.h"
#include "jailer/policy/compiler.h"
#include "supervisor/base/error.h"
#include "supervisor/spec/instance.h"
#include "supervisor/spec/launch_spec.h"

namespace jail {

/// The launch spec of `manifest`, users and groups looked up in `accounts` (of the source root). All problems
/// at once.
[[nodiscard]] Result<LaunchSpec> make_launch_spec(const Instance& instance,
                                                  const manifest::Manifest& manifest,
                                                  const Accounts& accounts);

/// What `manifest`'s [sandbox] syscalls allow, groups resolved. An unknown call or group is an error with its
/// place in the manifest. policy::compile() makes the filter of it.
[[nodiscard]] Result<policy::Policy> read_policy(const Instance& instance,
                                                 const manifest::Manifest& manifest);

/// The seccomp filter of `manifest`: the bytes of struct sock_filter[]. Reproducible.
[[nodiscard]] Result<std::string> compile_filter(const Instance& instance,
                                                 const manifest::Manifest& manifest);

}  // namespace jail
