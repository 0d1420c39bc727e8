// Manifest -> launch spec, syscall groups -> BPF.
#pragma once

#include <string>
#include <vector>

#include "jailer/closure/planner.h"
#include "jailer/manifest/model.h"
#include "supervisor/base/error.h"
#include "supervisor/spec/instance.h"
#include "supervisor/spec/launch_spec.h"

namespace jail {

/// The launch spec of `manifest`, users and groups looked up in `accounts` (of the source root). All problems
/// at once.
[[nodiscard]] Result<LaunchSpec> make_launch_spec(const Instance& instance,
                                                  const manifest::Manifest& manifest,
                                                  const Accounts& accounts);

/// The seccomp filter of `manifest`'s [sandbox] syscalls: an allow list compiled by libseccomp to one program
/// for the native architecture; the bytes of struct sock_filter[]. Reproducible. An unknown call or group is
/// an error with its place in the manifest.
[[nodiscard]] Result<std::string> compile_filter(const Instance& instance,
                                                 const manifest::Manifest& manifest);

}  // namespace jail
