// What a build looked at: every path that it asked the host about, and what was there. Enough to tell later,
// by stat alone, that the same build would come out the same.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <vector>

#include "jailer/witness/stamp.h"

namespace jail {

/// How a path counts when it is looked at again.
enum class LookAt : char {
  file = 'f',   ///< a final link followed: all of stat but the access time; of a directory, only which one
  entry = 'e',  ///< the same of what the name itself stands for: a link is a link
  directory = 'd',  ///< its names were read: all of stat, of a directory too
  volume = 'v',     ///< a daemon writes below it: type, mode and owner; links are not followed
  presence = 'p',   ///< a daemon may replace it: whether something is there
};

struct Look {
  std::string path;  ///< absolute, of the host
  LookAt how = LookAt::file;
  dev_t device = 0;
  ino_t inode = 0;  ///< 0: nothing was there, or it does not matter
};

/// Made before the first look; filled by whatever reads sources (SourceRoot, elf::RootTree,
/// manifest::add_looks). Not thread-safe.
class Looks {
 public:
  /// `status` is null where nothing is there.
  void add(std::string path, LookAt how, const struct stat* status) {
    const bool which = status != nullptr && how != LookAt::volume && how != LookAt::presence;
    all_.push_back({std::move(path), how, which ? status->st_dev : 0, which ? status->st_ino : 0});
  }
  /// Looks by itself.
  void add(std::string path, LookAt how);
  /// What was seen elsewhere.
  void add(std::string path, LookAt how, dev_t device, ino_t inode) {
    all_.push_back({std::move(path), how, device, inode});
  }
  /// All of `other`, which was begun after this.
  void add(const Looks& other) {
    all_.insert(all_.end(), other.all_.begin(), other.all_.end());
    spoilt_ = spoilt_ || other.spoilt_;
  }
  /// There was trouble (EACCES, EIO): nothing can be told later.
  void spoil() { spoilt_ = true; }

  [[nodiscard]] bool spoilt() const { return spoilt_; }
  /// The time of file_clock() when this was made.
  [[nodiscard]] std::int64_t begun() const { return begun_; }
  [[nodiscard]] const std::vector<Look>& all() const { return all_; }

 private:
  std::int64_t begun_ = file_clock();
  std::vector<Look> all_;
  bool spoilt_ = false;
};

}  // namespace jail
