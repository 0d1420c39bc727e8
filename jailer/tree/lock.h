// jail.lock: what a tree must contain. The contract that verify, diff, why, files and list are views of.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "jailer/closure/plan.h"
#include "jailer/tree/attributes.h"
#include "supervisor/base/error.h"
#include "supervisor/spec/generation.h"

namespace jail {

struct LockEntry {
  std::string path;
  EntryType type = EntryType::file;
  std::uint32_t mode = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint64_t size = 0;   ///< files; of secret ones not in the lock's text (secrets.h)
  std::string sha256;       ///< files; lower-case hex; of secret ones neither
  std::string target;       ///< symlinks
  std::uint32_t major = 0;  ///< device nodes
  std::uint32_t minor = 0;
  std::string source;   ///< files that were copied
  std::string package;  ///< that owns the source: "libssl3"; empty for none
  std::string package_version;
  std::string package_architecture;  ///< "amd64", "all"
  bool secret = false;
  Attributes xattrs;  ///< files; of secret ones not in the lock's text either
  std::vector<Reason> why;
};

struct Lock {
  static constexpr int current_version = 1;
  int version = current_version;
  std::string name;
  std::string distribution;  ///< of the source root, "debian-12"; empty where its os-release says nothing
  std::string tree_hash;     ///< over all entries; how, says the head of lock.cpp
  std::vector<LockEntry> entries;  ///< sorted by path
  /// The policy is part of the contract: the generation's other files (launch.json, filter.bpf,
  /// manifest.json) and their SHA-256.
  std::map<std::string, std::string> frozen;
  std::vector<PlannedVolume> volumes;  ///< sorted by name
};

/// The tree hash of sorted `entries`.
[[nodiscard]] std::string tree_hash(const std::vector<LockEntry>& entries);

/// Sorted, stable, no times: equal locks are equal bytes. One entry a line; ends in a newline, and is sealed
/// with a hash of itself. Bytes of paths that are not UTF-8 are written as \xHH, a backslash as two.
[[nodiscard]] std::string to_json(const Lock& lock);

/// Strict. A lock that was edited, so that the tree hash does not match its entries or the seal not its text,
/// is Exit::manifest, as is anything else that is wrong with it. `name` is for messages.
[[nodiscard]] Result<Lock> lock_from_json(std::string_view text, std::string_view name);

/// The lock of a generation.
[[nodiscard]] Result<Lock> lock_of(const generation::Opened& opened);
/// And with hashes and sizes of secret files, where secrets.json is as it was written: for comparing, never
/// for showing.
[[nodiscard]] Result<Lock> lock_with_secrets(const generation::Opened& opened);

}  // namespace jail
