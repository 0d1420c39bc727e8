// Where the bytes of a file under examination come from: memory (tests, fuzzing) or pread on a descriptor.
// Never mmap: a file that shrinks while it is mapped ends the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace jail::elf {

/// A file that can be read at any offset.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// Puts up to `count` bytes from `offset` at `to`. Returns how many; 0 at the end and on any error.
  [[nodiscard]] virtual std::size_t read(std::uint64_t offset, std::uint8_t* to, std::size_t count) const = 0;
  /// Size in bytes when it was opened; what read() finds may be less.
  [[nodiscard]] virtual std::uint64_t size() const = 0;
};

/// Bytes in memory, not owned.
class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::string_view bytes) : bytes_(bytes) {}
  [[nodiscard]] std::size_t read(std::uint64_t offset, std::uint8_t* to, std::size_t count) const override;
  [[nodiscard]] std::uint64_t size() const override { return bytes_.size(); }

 private:
  std::string_view bytes_;
};

/// An open regular file, not owned.
class FdSource final : public ByteSource {
 public:
  FdSource(int fd, std::uint64_t size) : fd_(fd), size_(size) {}
  [[nodiscard]] std::size_t read(std::uint64_t offset, std::uint8_t* to, std::size_t count) const override;
  [[nodiscard]] std::uint64_t size() const override { return size_; }

 private:
  int fd_;
  std::uint64_t size_;
};

/// Keeps the last few pieces of a source, so that neighbouring small reads cost one system call.
class Window {
 public:
  explicit Window(const ByteSource& source) : source_(source) {}
  /// `count` bytes at `offset`, valid until the next call; nullptr when the file does not hold them all or
  /// `count` is above max_fetch.
  [[nodiscard]] const std::uint8_t* at(std::uint64_t offset, std::size_t count);
  /// The NUL-terminated string at `offset`, which must end before `limit` bytes are over.
  [[nodiscard]] const char* string_at(std::uint64_t offset, std::uint64_t limit, std::size_t& length);
  [[nodiscard]] std::uint64_t size() const { return source_.size(); }

  static constexpr std::size_t max_fetch = std::size_t{64} << 20;
  static constexpr std::size_t max_string = std::size_t{64} * 1024;

 private:
  struct Block {
    std::uint64_t offset = 0;
    std::size_t length = 0;
    std::vector<std::uint8_t> bytes;
  };
  const ByteSource& source_;
  Block blocks_[4];
  unsigned next_ = 0;
};

}  // namespace jail::elf
