// The store: one object for each file content, mode, owner and attributes that trees share by hard link.
//
//   STATE/store/             root:root 0700
//     objects/SHA256-MODE-UID-GID[-xATTRIBUTES]   the last a hash, where it has extended attributes
//     tmp/                   objects in the making; what a dead build left goes with the next one
//     index                  store_index.h
//     .lock                  shared by builds; held alone for cleaning
//
// An object gets its name by rename when it is whole, with its final owner, mode and attributes. It is never
// written again: an object that is damaged or has its 65,000 links is replaced by a new inode under the same
// name.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>

#include "jailer/closure/plan.h"
#include "jailer/tree/attributes.h"
#include "jailer/tree/copy.h"
#include "jailer/tree/remove_tree.h"
#include "jailer/tree/store_index.h"
#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/spec/instance.h"

namespace jail::tree {

struct Object {
  std::string sha256;
  std::uint64_t size = 0;
  std::uint32_t mode = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  Attributes xattrs = {};
  [[nodiscard]] std::string key() const;
};

/// The store's index as it is on disk; an empty one where there is none. Makes nothing, waits for nobody.
[[nodiscard]] StoreIndex read_store_index(const Instance& instance);

class Store {
 public:
  /// Opens (and makes) the store, shared with other builds.
  [[nodiscard]] static Result<Store> open(const Instance& instance);

  /// The index in memory. Workers only read it; changes are made between the parallel parts and reach the
  /// disk by save().
  StoreIndex index;

  /// Copies the source of the plan's entry `file` into the store and hashes it on the way; fills in
  /// `object`'s hash, size and attributes, which has mode and owner. `status` is what the source was.
  /// Callable from several threads.
  [[nodiscard]] Result<void> ingest(const RootDir& root, const Entry& file, Object& object,
                                    struct stat& status, Worker& worker) const;

  /// Makes sure that the object is there and whole: known by its stamp, else by reading it; a missing or
  /// damaged one is made anew from its source. Callable from several threads.
  [[nodiscard]] Result<void> ensure(const RootDir& root, const Entry& file, const Object& object,
                                    Worker& worker) const;

  /// Links the object to `name` in `parent`, or, where the tree is on another file system than the store,
  /// makes a copy of it there; `path` is for messages.
  [[nodiscard]] Result<void> link(const Object& object, int parent, const char* name,
                                  const std::string& path) const;

  /// The object's stamp, as the index has it or else from disk; nothing where there is none.
  [[nodiscard]] const Stamp* known(const std::string& key) const;

  /// What a file of a tree looks like that link() has made is what the object looks like, unless it is a
  /// copy.
  void remember(const Object& object, const Stamp& linked);

  /// For remove_tree(): keeps the stamps of objects whose link count changes.
  [[nodiscard]] UnlinkWatch watch();

  /// Writes the index, what others wrote meanwhile included. A failure costs time later and nothing else.
  void save();

  /// Of its directory, in which others keep what is not for trees.
  [[nodiscard]] int fd() const { return dir_.get(); }

  /// Objects that no tree has, and what they take on the disk.
  struct Garbage {
    std::size_t objects = 0;
    std::uint64_t bytes = 0;
  };
  /// Removes them. Exit::busy while another build runs, after `patience`.
  [[nodiscard]] Result<Garbage> collect_garbage(std::chrono::milliseconds patience = {});
  /// What would be, were there fewer links: how many, by the object's inode.
  [[nodiscard]] Result<Garbage> garbage_without(const std::map<ino_t, nlink_t>& links) const;

 private:
  struct Temporary {
    UniqueFd fd;
    std::string name;
  };
  [[nodiscard]] Result<Temporary> make_temporary() const;
  [[nodiscard]] Result<void> ingest_once(const RootDir& root, const Entry& file, Object& object,
                                         struct stat& status, Worker& worker, bool& changed) const;
  [[nodiscard]] static Result<void> dress(int fd, const Object& object, const std::string& shown);
  [[nodiscard]] Result<void> admit(Temporary& temporary, const Object& object) const;
  [[nodiscard]] bool whole(const Object& object, Worker& worker) const;
  [[nodiscard]] Result<void> renew(const Object& object) const;
  [[nodiscard]] Result<void> copy_out(const Object& object, int parent, const char* name,
                                      const std::string& path) const;
  [[nodiscard]] std::string shown(const std::string& name) const { return path_ + "/" + name; }

  std::string path_;
  UniqueFd dir_;
  UniqueFd objects_;
  UniqueFd temporaries_;
  UniqueFd lock_;
  std::string loaded_;  ///< the index as it was read: not written again when nothing changed
  std::unique_ptr<std::atomic<unsigned>> serial_ = std::make_unique<std::atomic<unsigned>>(0);
  std::unordered_map<std::uint64_t, std::string> keys_by_inode_;
  std::unique_ptr<Writeback> writeback_ = std::make_unique<Writeback>();
};

}  // namespace jail::tree
