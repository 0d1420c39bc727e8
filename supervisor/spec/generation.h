// A generation: one build of one jail, frozen on disk. The seam between the two halves: the jailer writes it,
// jaild runs it and reads nothing else.
//
//   STATE/jails/NAME/gen/000001/   one generation, root:root 0700
//     tree/                        the root file system
//     jail.lock                    what the tree must contain (JSON, sorted, reproducible)
//     secrets.json                 hashes and sizes of secret files, which the lock leaves out
//     index.json                   what cannot be reproducible: inode, size, ctime, for the quick answers
//     witness                      what the last build that had nothing to do looked at (jailer/witness)
//     manifest.json                the merged manifest
//     launch.json                  the LaunchSpec (spec/launch_spec.h)
//     filter.bpf                   the compiled seccomp filter: an array of struct sock_filter
//   STATE/jails/NAME/current ->    gen/000001, switched by rename
#pragma once

#include <string>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/spec/instance.h"

namespace jail::generation {

inline constexpr const char* tree = "tree";
inline constexpr const char* lock = "jail.lock";
inline constexpr const char* secrets = "secrets.json";
inline constexpr const char* index = "index.json";
inline constexpr const char* manifest = "manifest.json";
inline constexpr const char* launch = "launch.json";
inline constexpr const char* filter = "filter.bpf";

/// One generation, held by a descriptor: a later switch of `current` does not move it.
struct Opened {
  UniqueFd dir;            ///< of gen/NUMBER
  unsigned long number{};  ///< 1, 2, 3 ...
  std::string path;        ///< for messages
};

/// The file name of a generation: six digits or more.
[[nodiscard]] std::string file_name(unsigned long number);

/// Opens the current generation of `name`. Exit::no_input, with the hint to build, where there is none. A
/// `current` that is not a link of our own form (gen/NUMBER) is an error.
[[nodiscard]] Result<Opened> open_current(const Instance& instance, const std::string& name);

/// Opens the generation `number` of `name`.
[[nodiscard]] Result<Opened> open_number(const Instance& instance, const std::string& name,
                                         unsigned long number);

/// As open_current(), or of a `number` as open_number(), and held: for as long as the descriptor lives nobody
/// removes it (a shared flock on its directory, which whoever removes one takes alone). For what is about to
/// run in it, or may again; a process that has its tree as its root keeps it by that.
[[nodiscard]] Result<Opened> hold_current(const Instance& instance, const std::string& name);
[[nodiscard]] Result<Opened> hold_number(const Instance& instance, const std::string& name,
                                         unsigned long number);

}  // namespace jail::generation
