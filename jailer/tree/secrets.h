// What a lock leaves out of secret files: their hashes, sizes and attributes. A lock is shown, sent and kept
// with reports; from the hash of a short password its bytes can be guessed, an attribute may hold one, and
// its size is a hint already. They are in secrets.json beside the lock, root's alone as the secrets
// themselves are, which verify and builds read.
#pragma once

#include <string>
#include <string_view>

#include "jailer/tree/lock.h"
#include "jailer/tree/root_dir.h"
#include "supervisor/base/error.h"

namespace jail::tree {

/// Whether the lock leaves hash, size and attributes of `entry` out.
[[nodiscard]] inline bool is_secret_file(const LockEntry& entry) {
  return entry.secret && entry.type == EntryType::file;
}

/// secrets.json of `lock`; empty where nothing in it is secret.
[[nodiscard]] std::string secrets_json(const Lock& lock);

/// Gives the entries of `lock` what secrets.json says. Exit::manifest unless it is of just these files.
[[nodiscard]] Result<void> add_secrets(Lock& lock, std::string_view text, std::string_view name);

/// Overwrites the secret files of `tree`, as the lock in the directory `files` names them, with zeros, on the
/// disk. What cannot be is left: it is to be removed in any case.
void wipe_secrets(int files, const RootDir& tree);

/// The same of all generations in the directory `generations`, whose names begin with `prefix`.
void wipe_generations(int generations, std::string_view prefix);

}  // namespace jail::tree
