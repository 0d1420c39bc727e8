// What the files of a plan are made of: hash, size and owner package of each, and where its bytes come from.
#pragma once

#include <string>
#include <vector>

#include "jailer/closure/plan.h"
#include "jailer/tree/store.h"
#include "supervisor/base/error.h"

namespace jail::tree {

/// What tells that dpkg was at work: every run writes `status` anew, every step of one puts a note into
/// `updates`, every diversion writes the list of all.
constexpr const char* package_database[] = {"/var/lib/dpkg/status", "/var/lib/dpkg/updates",
                                            "/var/lib/dpkg/diversions"};

struct Material {
  const Entry* entry = nullptr;  ///< of the plan, a file
  std::string sha256;
  std::uint64_t size = 0;
  bool shared = false;   ///< lives in the store
  bool checked = false;  ///< shared: the object was made or seen to be whole by this build
  Stamp stamp;           ///< of the source
  Attributes xattrs;     ///< of those that the entry wants what the source has
  std::string package;
  std::string version;
  std::string architecture;
  std::vector<std::string> mentions;  ///< libraries that stand in it as text: elf/mentions.h
  [[nodiscard]] Object object() const { return {sha256, size, entry->mode, entry->uid, entry->gid, xattrs}; }
};

/// Files larger than this, neither generated nor secret, are shared (a block: smaller ones gain nothing).
inline constexpr std::uint64_t share_above = 4096;

/// Whether files live in the store, or the tree is to stand alone.
enum class Sharing : std::uint8_t { store, none };

/// The materials of all files of `plan`, in the order of its entries. Sources that the store's index does not
/// know are read (those to be shared straight into the store); the index learns them, but of secret ones only
/// their packages.
[[nodiscard]] Result<std::vector<Material>> collect_materials(const Plan& plan, const RootDir& root,
                                                              Store& store, Sharing sharing = Sharing::store);

/// Makes sure that every shared one has a whole object in the store.
[[nodiscard]] Result<void> check_objects(const RootDir& root, std::vector<Material>& materials,
                                         const Store& store);

}  // namespace jail::tree
