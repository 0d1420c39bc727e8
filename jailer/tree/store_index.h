// What the store knows without reading: the hashes of sources, and which of its objects were whole when last
// seen.
//
// One file, STATE/store/index: "jail-store-index 2", then records of fields, each field ended by a NUL byte:
//   S path device inode size mtime ctime sha256 database package version architecture
//   O key inode size mtime ctime
// It only saves time: without it, or where it does not match, bytes are read.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "jailer/witness/stamp.h"
#include "supervisor/base/error.h"

namespace jail::tree {

/// A source file as it was when it was hashed, and who owned it.
struct SourceRecord {
  std::uint64_t device = 0;
  Stamp stamp;
  std::string sha256;
  std::string database;  ///< state of the package database that said so: package_database_stamp()
  std::string package;
  std::string version;
  std::string architecture;
  bool operator==(const SourceRecord&) const = default;
};

struct StoreIndex {
  std::map<std::string, SourceRecord> sources;  ///< by host path
  std::map<std::string, Stamp> objects;         ///< by key

  [[nodiscard]] std::string to_bytes() const;
  /// Nothing for bytes that are not an index.
  [[nodiscard]] static std::optional<StoreIndex> from_bytes(std::string_view bytes);
};

}  // namespace jail::tree
