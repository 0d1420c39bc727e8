// Begins to write files to the disk while others are still read and hashed, so that the sync at a build's end
// finds little left to wait for.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "supervisor/base/fd.h"

namespace jail::tree {

/// A thread of its own asks the kernel (sync_file_range(2)): the call waits when the disk is busy. No
/// promise: what must be on the disk is synced besides, and nothing here fails.
class Writeback {
 public:
  Writeback() = default;
  Writeback(const Writeback&) = delete;
  Writeback& operator=(const Writeback&) = delete;
  /// Forgets what was not begun.
  ~Writeback();

  /// `size` bytes of `fd` from `at` on. From any thread.
  void begin(int fd, off_t at, off_t size);

  /// Of a file so much is written before the rest is read.
  static constexpr off_t step = off_t{4} << 20U;

 private:
  struct Range {
    UniqueFd fd;
    off_t at;
    off_t size;
  };
  void run();

  std::mutex mutex_;
  std::condition_variable more_;
  std::deque<Range> ranges_;
  bool over_ = false;
  std::thread thread_;  ///< once there is something to do
};

}  // namespace jail::tree
