// Plain trees: a plan made real in a directory of the admin's choice, of copies and device nodes, that needs
// nothing of ours: for chroot(8), for containers, for another machine.
//
//   DIR          the tree
//   DIR.jail/    root:root 0700: jail.lock and, where there are secrets, secrets.json
//   .NAME.jail-new/   beside the two while a build is at it (NAME is DIR's): tree/ and files/ in the making
//
// Tree and lock are two names, which no one rename switches. The tree is switched first; files/root in the
// staging says which root directory its lock is of, so that whoever comes between the two finds the right
// one, and the next build finishes what one that died has left.
#pragma once

#include <string>

#include "jailer/closure/plan.h"
#include "jailer/tree/builder.h"
#include "supervisor/base/error.h"
#include "supervisor/spec/instance.h"

namespace jail {

/// Builds the plain tree `directory` (absolute and clean). It is whole or as it was before. What stands there
/// must be missing, empty, or a tree of the same jail that this made and nobody lives in. `options.force`: a
/// new one even if nothing changed, and even if the daemon has state in its volumes, which goes. The store's
/// index is used for what it knows of sources; nothing of the store is in the tree.
[[nodiscard]] Result<BuildResult> build_plain(const Instance& instance, const Plan& plan,
                                              const std::string& directory, const BuildOptions& options);

/// Compares a plain tree with its lock, as verify() does. What a daemon has added in its volumes is no
/// difference. Exit::no_input where `directory` is no tree of ours.
[[nodiscard]] Result<VerifyResult> verify_plain(const std::string& directory,
                                                const VerifyOptions& options = {});

}  // namespace jail
