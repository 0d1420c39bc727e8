// jail.lock: what a tree must contain. The contract that verify, diff, why, files and list are views of.
#pragma once

#include <string>
#include <vector>

#include "jailer/closure/plan.h"
#include "supervisor/base/error.h"

namespace jail {

struct LockEntry {
  std::string path;
  EntryType type = EntryType::file;
  std::uint32_t mode = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint64_t size = 0;       ///< files
  std::string sha256;           ///< files; lower-case hex
  std::string target;           ///< symlinks
  std::uint32_t major = 0;      ///< device nodes
  std::uint32_t minor = 0;
  std::string source;           ///< files that were copied
  std::string package;          ///< that owns the source: "libssl3"; empty for none
  std::string package_version;
  bool secret = false;
  std::vector<Reason> why;
};

struct Lock {
  static constexpr int current_version = 1;
  int version = current_version;
  std::string name;
  std::string tree_hash;            ///< over all entries; how, says the head of lock.cpp
  std::vector<LockEntry> entries;   ///< sorted by path
};

/// Sorted, stable, no times: equal locks are equal bytes. Ends in a newline.
[[nodiscard]] std::string to_json(const Lock& lock);

/// Strict; an edited lock whose tree hash does not match its entries is an error. `name` is for messages.
[[nodiscard]] Result<Lock> lock_from_json(std::string_view text, std::string_view name);

}  // namespace jail
