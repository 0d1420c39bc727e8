#include "supervisor/log/sink_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "supervisor/log/intake.h"

namespace jail::log {
namespace {

constexpr int turns = 4;  // outboxes written before other jails have their turn

// How many bytes of `text` stand in `fd` at `at`. Compared, not guessed from the size: others may append too.
std::size_t written_already(int fd, std::uint64_t at, std::string_view text) {
  std::array<char, 4096> buffer;
  std::size_t same = 0;
  while (same < text.size()) {
    const ssize_t count = ::pread(fd, buffer.data(), std::min(buffer.size(), text.size() - same),
                                  static_cast<off_t>(at + same));
    if (count <= 0) break;
    for (ssize_t i = 0; i < count; ++i, ++same)
      if (buffer[static_cast<std::size_t>(i)] != text[same]) return same;
  }
  return same;
}

}  // namespace

void FileSink::open(UniqueFd fd, Region region) {
  fd_ = std::move(fd);
  const OutboxState out = region.state().out;
  struct stat status {};
  if (out.done == out.length || ::fstat(fd_.get(), &status) != 0) return;
  const std::string_view text(region.memory().outbox.data(), out.length);
  std::size_t done = 0;
  if (status.st_dev == out.device && status.st_ino == out.inode) {
    done = written_already(fd_.get(), out.before, text);
  } else if (out.done != 0) {
    // The old file has a part of a line; the new one gets the whole line.
    const std::size_t end = text.substr(0, out.done).rfind('\n');
    done = end == std::string_view::npos ? 0 : end + 1;
  }
  region.commit([&](State& state) { state.out.done = static_cast<std::uint32_t>(done); });
}

FileSink::Status FileSink::fill(Region region) {
  struct stat status {};
  if (::fstat(fd_.get(), &status) != 0) return Status::blocked;
  if (status.st_nlink == 0) return Status::removed;
  Position at = region.state().cursor[static_cast<std::size_t>(Sink::file)];
  const std::uint64_t dropped = region.state().dropped[static_cast<std::size_t>(Sink::file)];
  text_.clear();
  if (dropped != 0)
    append_drop_line(text_, region.name(), now_us(), dropped,
                     last_error_ != 0 ? std::string("the log file: ") + ::strerrordesc_np(last_error_)
                                      : "the relay could not keep up");
  Record record;
  while (text_.size() + line_limit <= outbox_bytes && region.next(at, record))
    append_line(text_, region.name(), record);
  if (text_.empty()) return Status::done;
  std::memcpy(region.memory().outbox.data(), text_.data(), text_.size());
  region.commit([&](State& state) {
    state.out.length = static_cast<std::uint32_t>(text_.size());
    state.out.done = 0;
    state.out.before = static_cast<std::uint64_t>(status.st_size);
    state.out.device = status.st_dev;
    state.out.inode = status.st_ino;
    state.cursor[static_cast<std::size_t>(Sink::file)] = at;
    state.dropped[static_cast<std::size_t>(Sink::file)] -= dropped;
  });
  return Status::more;
}

FileSink::Status FileSink::flush(Region region) {
  if (!fd_) return Status::none;
  for (int turn = 0; turn < turns;) {
    const OutboxState& out = region.state().out;
    if (out.done == out.length) {
      if (!region.pending(Sink::file)) return Status::done;
      const Status status = fill(region);
      if (status != Status::more) return status;
      continue;
    }
    const ssize_t count = ::write(fd_.get(), region.memory().outbox.data() + out.done, out.length - out.done);
    if (count <= 0) {
      last_error_ = count < 0 ? errno : EIO;
      return Status::blocked;
    }
    region.commit([&](State& state) { state.out.done += static_cast<std::uint32_t>(count); });
    ++turn;
  }
  return region.drained() ? Status::done : Status::more;
}

}  // namespace jail::log
