// The parts of the ELF reader beside the dynamic array: symbol versions, notes, the size of the symbol table.
#include <elf.h>

#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "jailer/elf/elf_view.h"

namespace jail::elf {
namespace {

constexpr std::uint64_t kMaxVersions = 65536;
constexpr std::uint32_t kDlopenNote = 0x407c0c0a;
constexpr std::uint32_t kX86IsaNeeded = 0xc0008002;  // GNU_PROPERTY_X86_ISA_1_NEEDED
constexpr std::uint64_t kMaxNoteBytes = std::uint64_t{256} * 1024;

/// An entry of `size` bytes at `address`, or nullptr.
const std::uint8_t* record(View& view, std::uint64_t address, std::size_t size) {
  const auto place = view.place_of(address);
  return place && place->available >= size ? view.at(place->offset, size) : nullptr;
}

tl::unexpected<Error> broken(const char* what) {
  return fail(Exit::manifest, "its {} is broken", what);
}

/// GNU properties: (type, size, data) padded to the word size, in ascending order of types.
std::uint32_t isa_of_properties(const View& view, const std::uint8_t* p, std::uint64_t length) {
  const std::uint64_t align = view.word_size();
  std::uint32_t last = 0;
  while (length >= 8) {
    const std::uint32_t type = view.u32(p);
    const std::uint64_t size = view.u32(p + 4);
    if (type < last || size > length - 8) return 0;
    if (type >= kX86IsaNeeded) return type == kX86IsaNeeded && size == 4 ? view.u32(p + 8) : 0;
    last = type;
    const std::uint64_t step = std::min(length, 8 + (size + align - 1) / align * align);
    p += step;
    length -= step;
  }
  return 0;
}

/// One note: what read_notes() looks for.
struct Note {
  std::uint32_t type = 0;
  bool gnu = false;
  bool fdo = false;
  const std::uint8_t* body = nullptr;
  std::size_t size = 0;
};

/// The note at the front of `p`, which is moved behind it; nothing at the end, or where it is broken.
std::optional<Note> next_note(const View& view, const std::uint8_t*& p, std::size_t& length) {
  if (length < 12) return std::nullopt;
  const std::uint64_t name_size = view.u32(p);
  const std::uint64_t size = view.u32(p + 4);
  const std::uint64_t body = 12 + (name_size + 3) / 4 * 4;
  if (body > length || size > length - body) return std::nullopt;
  Note note{view.u32(p + 8), false, false, p + body, static_cast<std::size_t>(size)};
  note.gnu = name_size == 4 && std::memcmp(p + 12, "GNU", 4) == 0;
  note.fdo = name_size == 4 && std::memcmp(p + 12, "FDO", 4) == 0;
  // Properties are aligned to the word, all other notes to four bytes.
  const bool property = note.type == NT_GNU_PROPERTY_TYPE_0 && note.gnu;
  const std::uint64_t align = property ? view.word_size() : 4;
  const std::uint64_t step = std::min<std::uint64_t>(length, body + (size + align - 1) / align * align);
  p += step;
  length -= static_cast<std::size_t>(step);
  return note;
}

/// The ISA level that a PT_NOTE asks for, of which ld.so reads one note with properties and no second one.
void take_isa(const View& view, const std::vector<Note>& properties, std::uint64_t alignment, ElfFile& file) {
  if (properties.size() != 1 || alignment != view.word_size()) return;
  const Note& note = properties.front();
  if (note.size < 8 || note.size % view.word_size() != 0) return;
  file.isa_needed = isa_of_properties(view, note.body, note.size);
}

}  // namespace

Result<void> read_version_needs(View& view, const View::Place& strings, std::uint64_t address,
                                std::uint64_t count, ElfFile& file) {
  std::uint64_t total = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint8_t* need = record(view, address, sizeof(Elf64_Verneed));
    if (need == nullptr) return broken("DT_VERNEED");
    const std::uint16_t versions = view.u16(need + 2);
    const std::uint32_t name = view.u32(need + 4);
    std::uint64_t at = address + view.u32(need + 8);
    const std::uint32_t next = view.u32(need + 12);
    JAIL_TRY(library, view.string(strings, name));
    for (std::uint16_t j = 0; j < versions; ++j) {
      if (++total > kMaxVersions) return broken("DT_VERNEED");
      const std::uint8_t* entry = record(view, at, sizeof(Elf64_Vernaux));
      if (entry == nullptr) return broken("DT_VERNEED");
      const bool weak = (view.u16(entry + 4) & VER_FLG_WEAK) != 0;
      const std::uint32_t text = view.u32(entry + 8);
      const std::uint32_t step = view.u32(entry + 12);
      JAIL_TRY(version, view.string(strings, text));
      file.version_needs.push_back({library, std::move(version), weak});
      if (step == 0) break;
      at += step;
    }
    if (next == 0) break;
    if (++total > kMaxVersions) return broken("DT_VERNEED");
    address += next;
  }
  return {};
}

Result<void> read_version_definitions(View& view, const View::Place& strings, std::uint64_t address,
                                      std::uint64_t count, ElfFile& file) {
  file.has_version_definitions = true;
  for (std::uint64_t i = 0; i < std::min(count, kMaxVersions); ++i) {
    const std::uint8_t* definition = record(view, address, sizeof(Elf64_Verdef));
    if (definition == nullptr) return broken("DT_VERDEF");
    const std::uint32_t first = view.u32(definition + 12);
    const std::uint32_t next = view.u32(definition + 16);
    const std::uint8_t* entry = record(view, address + first, sizeof(Elf64_Verdaux));
    if (entry == nullptr) return broken("DT_VERDEF");
    JAIL_TRY(name, view.string(strings, view.u32(entry)));
    file.version_definitions.push_back(std::move(name));
    if (next == 0) break;
    address += next;
  }
  return {};
}

void read_notes(View& view, ElfFile& file) {
  int left = 32;
  for (const Segment& segment : view.segments()) {
    if (segment.type != PT_NOTE || segment.file_size > kMaxNoteBytes || left-- == 0) continue;
    auto length = static_cast<std::size_t>(segment.file_size);
    const std::uint8_t* p = view.at(segment.offset, length);
    if (p == nullptr) continue;
    std::vector<Note> properties;
    while (const auto note = next_note(view, p, length)) {
      if (note->gnu && note->type == NT_GNU_PROPERTY_TYPE_0) properties.push_back(*note);
      if (!note->fdo || note->type != kDlopenNote) continue;
      const char* text = reinterpret_cast<const char*>(note->body);
      file.dlopen_notes.emplace_back(text, ::strnlen(text, note->size));
    }
    take_isa(view, properties, segment.alignment, file);
  }
}

std::uint64_t count_symbols(View& view, std::optional<std::uint64_t> gnu_hash,
                            std::optional<std::uint64_t> hash) {
  if (hash) {
    if (const std::uint8_t* p = record(view, *hash, 8)) return view.u32(p + 4);
  }
  if (!gnu_hash) return 0;
  const std::uint8_t* p = record(view, *gnu_hash, 16);
  if (p == nullptr) return 0;
  const std::uint64_t buckets = view.u32(p);
  const std::uint64_t first = view.u32(p + 4);
  const std::uint64_t bloom = view.u32(p + 8);
  const auto table = view.place_of(*gnu_hash);
  const std::uint64_t start = 16 + bloom * view.word_size();
  if (!table || start > table->available || buckets > (table->available - start) / 4) return 0;
  const std::uint8_t* bucket = view.at(table->offset + start, static_cast<std::size_t>(buckets * 4));
  if (bucket == nullptr) return 0;
  std::uint64_t last = 0;
  for (std::uint64_t i = 0; i < buckets; ++i) last = std::max<std::uint64_t>(last, view.u32(bucket + i * 4));
  if (last < first) return first;  // nothing is defined: all symbols before `first` are imports
  const std::uint64_t chains = start + buckets * 4;
  for (;; ++last) {  // the last chain ends at the first hash with its low bit set
    const std::uint64_t offset = chains + (last - first) * 4;
    if (offset > table->available || table->available - offset < 4) return 0;
    const std::uint8_t* chain = view.at(table->offset + offset, 4);
    if (chain == nullptr) return 0;
    if ((view.u32(chain) & 1) != 0) return last + 1;
  }
}

}  // namespace jail::elf
