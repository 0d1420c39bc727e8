// Within the ELF reader: numbers in the file's class and byte order, addresses mapped to offsets, strings
// within a budget.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "jailer/elf/elf_file.h"

namespace jail::elf {

/// One program header.
struct Segment {
  std::uint32_t type = 0;
  std::uint32_t flags = 0;
  std::uint64_t offset = 0;
  std::uint64_t address = 0;
  std::uint64_t file_size = 0;
  std::uint64_t memory_size = 0;
  std::uint64_t alignment = 0;
};

class View {
 public:
  View(const ByteSource& source, const Header& header);

  [[nodiscard]] bool wide() const { return wide_; }
  [[nodiscard]] std::uint16_t u16(const std::uint8_t* p) const {
    return static_cast<std::uint16_t>(number(p, 2));
  }
  [[nodiscard]] std::uint32_t u32(const std::uint8_t* p) const {
    return static_cast<std::uint32_t>(number(p, 4));
  }
  [[nodiscard]] std::uint64_t u64(const std::uint8_t* p) const { return number(p, 8); }
  /// An address-sized number.
  [[nodiscard]] std::uint64_t word(const std::uint8_t* p) const { return wide_ ? u64(p) : u32(p); }
  [[nodiscard]] std::size_t word_size() const { return wide_ ? 8 : 4; }

  [[nodiscard]] Result<void> read_segments(const Header& header);
  [[nodiscard]] const std::vector<Segment>& segments() const { return segments_; }

  /// A place in the file, and how many bytes of its segment follow.
  struct Place {
    std::uint64_t offset = 0;
    std::uint64_t available = 0;
  };
  [[nodiscard]] std::optional<Place> place_of(std::uint64_t address) const;

  [[nodiscard]] const std::uint8_t* at(std::uint64_t offset, std::size_t count) {
    return window_.at(offset, count);
  }
  /// The string `index` of the table at `strings`, valid until the next call; fails when it is not terminated
  /// within the table, is longer than 64 KiB, or when all strings taken so far exceed the budget.
  [[nodiscard]] Result<std::string_view> text(const Place& strings, std::uint64_t index);
  [[nodiscard]] Result<std::string> string(const Place& strings, std::uint64_t index) {
    return text(strings, index).map([](std::string_view found) { return std::string(found); });
  }
  [[nodiscard]] std::uint64_t file_size() const { return window_.size(); }

 private:
  [[nodiscard]] std::uint64_t number(const std::uint8_t* p, int bytes) const {
    std::uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value |= std::uint64_t{p[big_ ? bytes - 1 - i : i]} << (8 * i);
    return value;
  }

  Window window_;
  bool wide_;
  bool big_;
  std::vector<Segment> segments_;
  std::size_t budget_ = std::size_t{32} << 20;
};

/// DT_VERNEED and DT_VERDEF of a file whose string table is at `strings`.
[[nodiscard]] Result<void> read_version_needs(View& view, const View::Place& strings, std::uint64_t address,
                                              std::uint64_t count, ElfFile& file);
[[nodiscard]] Result<void> read_version_definitions(View& view, const View::Place& strings,
                                                    std::uint64_t address, std::uint64_t count,
                                                    ElfFile& file);
/// PT_NOTE segments: .note.dlopen and the x86 ISA level. Broken notes are passed over: no loader minds them.
void read_notes(View& view, ElfFile& file);
/// How many symbols the table has, from DT_GNU_HASH or DT_HASH (0: none of them, or broken).
[[nodiscard]] std::uint64_t count_symbols(View& view, std::optional<std::uint64_t> gnu_hash,
                                          std::optional<std::uint64_t> hash);

}  // namespace jail::elf
