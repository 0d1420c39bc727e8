#include "jailer/elf/elf_view.h"

#include <elf.h>

#include <algorithm>

namespace jail::elf {

View::View(const ByteSource& source, const Header& header)
    : window_(source), wide_(header.abi.elf_class == ELFCLASS64), big_(header.abi.data == ELFDATA2MSB) {}

Result<void> View::read_segments(const Header& header) {
  const std::size_t entry = wide_ ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
  const std::size_t count = header.program_header_count;
  if (count == PN_XNUM) return fail(Exit::manifest, "its program header count is out of range");
  if (count == 0) return {};
  if (header.program_header_size != entry) {
    return fail(Exit::manifest, "ELF file's phentsize not the expected size");
  }
  const std::uint8_t* table = at(header.program_headers, entry * count);
  if (table == nullptr) return fail(Exit::manifest, "its program headers lie outside of the file");
  segments_.reserve(count);
  std::uint64_t load_end = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint8_t* p = table + i * entry;
    Segment segment;
    segment.type = u32(p);
    segment.flags = u32(p + (wide_ ? 4 : 24));
    segment.offset = wide_ ? u64(p + 8) : u32(p + 4);
    segment.address = wide_ ? u64(p + 16) : u32(p + 8);
    segment.file_size = wide_ ? u64(p + 32) : u32(p + 16);
    segment.memory_size = wide_ ? u64(p + 40) : u32(p + 20);
    segment.alignment = wide_ ? u64(p + 48) : u32(p + 28);
    if (segment.type == PT_LOAD) {
      if (segment.address < load_end || segment.address + segment.memory_size < segment.address) {
        return fail(Exit::manifest, "its PT_LOAD segments overlap or are not in ascending order");
      }
      load_end = segment.address + segment.memory_size;
    }
    segments_.push_back(segment);
  }
  return {};
}

std::optional<View::Place> View::place_of(std::uint64_t address) const {
  for (const Segment& segment : segments_) {
    if (segment.type != PT_LOAD || address < segment.address) continue;
    const std::uint64_t into = address - segment.address;
    if (into >= segment.file_size || segment.offset > window_.size() ||
        into > window_.size() - segment.offset) {
      continue;
    }
    const std::uint64_t offset = segment.offset + into;
    return Place{offset, std::min(segment.file_size - into, window_.size() - offset)};
  }
  return std::nullopt;
}

Result<std::string_view> View::text(const Place& strings, std::uint64_t index) {
  if (index >= strings.available) return fail(Exit::manifest, "a name lies outside of its string table");
  std::size_t length = 0;
  const char* found = window_.string_at(strings.offset + index, strings.available - index, length);
  if (found == nullptr) return fail(Exit::manifest, "a name in its string table is not terminated");
  if (length + 32 > budget_)
    return fail(Exit::manifest, "its dynamic segment names more than 32 MiB of strings");
  budget_ -= length + 32;  // the 32 are what holding even an empty string costs
  return std::string_view(found, length);
}

}  // namespace jail::elf
