#include "jailer/elf/source.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

namespace jail::elf {

std::size_t MemorySource::read(std::uint64_t offset, std::uint8_t* to, std::size_t count) const {
  if (offset >= bytes_.size()) return 0;
  const std::size_t length = std::min(count, bytes_.size() - static_cast<std::size_t>(offset));
  if (length > 0) std::memcpy(to, bytes_.data() + offset, length);
  return length;
}

std::size_t FdSource::read(std::uint64_t offset, std::uint8_t* to, std::size_t count) const {
  if (offset > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) return 0;
  std::size_t done = 0;
  while (done < count) {
    const ssize_t got = ::pread(fd_, to + done, count - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

const std::uint8_t* Window::at(std::uint64_t offset, std::size_t count) {
  static constexpr std::size_t unit = 4096;
  static constexpr std::size_t least = 16384;
  if (count > max_fetch || offset > size() || count > size() - offset) return nullptr;
  for (const Block& block : blocks_) {
    if (offset >= block.offset && offset - block.offset <= block.length &&
        count <= block.length - (offset - block.offset)) {
      return block.bytes.data() + (offset - block.offset);
    }
  }
  Block& block = blocks_[next_++ % std::size(blocks_)];
  const std::uint64_t start = offset / unit * unit;
  const auto wanted = std::min<std::uint64_t>(size() - start, offset - start + std::max(count, least));
  block.bytes.resize(static_cast<std::size_t>(wanted));
  block.offset = start;
  block.length = source_.read(start, block.bytes.data(), block.bytes.size());
  if (block.length < offset - start || block.length - (offset - start) < count) return nullptr;
  return block.bytes.data() + (offset - start);
}

const char* Window::string_at(std::uint64_t offset, std::uint64_t limit, std::size_t& length) {
  if (offset >= size()) return nullptr;
  const auto all = static_cast<std::size_t>(std::min<std::uint64_t>({limit, size() - offset, max_string}));
  for (std::size_t count = std::min<std::size_t>(all, 64);; count = std::min(all, count * 8)) {
    const std::uint8_t* bytes = at(offset, count);
    if (bytes == nullptr) return nullptr;
    if (const void* end = count == 0 ? nullptr : std::memchr(bytes, 0, count)) {
      length = static_cast<std::size_t>(static_cast<const std::uint8_t*>(end) - bytes);
      return reinterpret_cast<const char*>(bytes);
    }
    if (count == all) return nullptr;
  }
}

}  // namespace jail::elf
