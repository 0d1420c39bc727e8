#include "jailer/tree/writeback.h"

#include <fcntl.h>

#include <system_error>

namespace jail::tree {

Writeback::~Writeback() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  more_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Writeback::begin(int fd, off_t at, off_t size) {
  UniqueFd own(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!own) return;
  const std::lock_guard lock(mutex_);
  try {
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  } catch (const std::system_error&) {
    return;  // no more threads to be had
  }
  ranges_.push_back({std::move(own), at, size});
  more_.notify_one();
}

void Writeback::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    more_.wait(lock, [this] { return over_ || !ranges_.empty(); });
    if (over_) return;
    const Range range = std::move(ranges_.front());
    ranges_.pop_front();
    lock.unlock();
    (void)::sync_file_range(range.fd.get(), range.at, range.size, SYNC_FILE_RANGE_WRITE);
    lock.lock();
  }
}

}  // namespace jail::tree
