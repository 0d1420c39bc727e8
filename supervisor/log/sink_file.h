// A jail's log file. jaild opens it (the relay can open nothing) and hands it over; here it is written.
#pragma once

#include "supervisor/base/fd.h"
#include "supervisor/log/ring.h"

namespace jail::log {

class FileSink {
 public:
  enum class Status {
    done,     ///< nothing is left to write
    more,     ///< there is more: call again after the others had their turn
    blocked,  ///< the file takes nothing now (full disk, I/O error): try again later
    removed,  ///< the file has no name any more: ask for another
    none,     ///< there is no file
  };

  /// Takes the file, open for reading and appending. What stands in the region's outbox goes on where it
  /// stopped: the file tells how much of it the relay before wrote.
  void open(UniqueFd fd, Region region);
  /// Lets go of the file; records wait for the next.
  void close() { fd_.reset(); }

  /// Writes what the region holds for it.
  Status flush(Region region);

  [[nodiscard]] bool valid() const { return fd_.valid(); }
  [[nodiscard]] int last_error() const { return last_error_; }

 private:
  Status fill(Region region);

  UniqueFd fd_;
  int last_error_ = 0;
  std::string text_;
};

}  // namespace jail::log
