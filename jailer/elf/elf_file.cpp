#include "jailer/elf/elf_file.h"

#include <elf.h>

#include <algorithm>
#include <cstring>

#include "jailer/elf/elf_view.h"

namespace jail::elf {
namespace {

constexpr std::uint64_t kMaxDynamicBytes = std::uint64_t{16} << 20;
constexpr std::uint64_t kMaxInterpreter = 4096;  // PATH_MAX: the kernel's own limit
constexpr std::uint64_t kMaxSymbolBytes = std::uint64_t{48} << 20;
constexpr std::size_t kMaxAuditName = 4096;    // SECURE_PATH_LIMIT of glibc
constexpr std::uint8_t kMaxGnuAbiVersion = 4;  // LIBC_ABI_MAX of glibc

/// The dynamic array, each tag as ld.so holds it: the last one of a kind counts.
struct Dynamic {
  std::optional<std::uint64_t> strings, strings_size, soname, rpath, runpath, needs, needs_count, definitions,
      definitions_count, symbols, gnu_hash, hash, audit, dependency_audit;
  struct Entry {
    std::uint64_t tag;
    std::uint64_t value;
  };
  std::vector<Entry> names;  ///< NEEDED, AUXILIARY, FILTER, in order
};

void note_entry(Dynamic& dynamic, ElfFile& file, std::uint64_t tag, std::uint64_t value) {
  switch (tag) {
    case DT_NEEDED:
    case DT_AUXILIARY:
    case DT_FILTER:
      dynamic.names.push_back({tag, value});
      break;
    case DT_AUDIT:
      dynamic.audit = value;
      break;
    case DT_DEPAUDIT:
      dynamic.dependency_audit = value;
      break;
    case DT_STRTAB:
      dynamic.strings = value;
      break;
    case DT_STRSZ:
      dynamic.strings_size = value;
      break;
    case DT_SONAME:
      dynamic.soname = value;
      break;
    case DT_RPATH:
      dynamic.rpath = value;
      break;
    case DT_RUNPATH:
      dynamic.runpath = value;
      break;
    case DT_VERNEED:
      dynamic.needs = value;
      break;
    case DT_VERNEEDNUM:
      dynamic.needs_count = value;
      break;
    case DT_VERDEF:
      dynamic.definitions = value;
      break;
    case DT_VERDEFNUM:
      dynamic.definitions_count = value;
      break;
    case DT_SYMTAB:
      dynamic.symbols = value;
      break;
    case DT_GNU_HASH:
      dynamic.gnu_hash = value;
      break;
    case DT_HASH:
      dynamic.hash = value;
      break;
    case DT_FLAGS:
      file.flags = static_cast<std::uint32_t>(value);
      break;
    case DT_FLAGS_1:
      file.flags_1 = static_cast<std::uint32_t>(value);
      break;
    default:
      break;
  }
}

/// What separate debug files look like: the headers of the program, and none of its bytes.
tl::unexpected<Error> not_in_file(const char* what) {
  return with_hint(fail(Exit::manifest, "its {} is not in the file", what),
                   "separate debug files (.debug) look like this: name the stripped file instead");
}

Result<Dynamic> read_array(View& view, const Segment& segment, ElfFile& file) {
  const std::size_t entry = 2 * view.word_size();
  if (segment.file_size > kMaxDynamicBytes)
    return fail(Exit::manifest, "its dynamic segment is larger than 16 MiB");
  const std::size_t count = static_cast<std::size_t>(segment.file_size) / entry;
  const std::uint8_t* array = view.at(segment.offset, count * entry);
  if (array == nullptr || count == 0) {
    return not_in_file("dynamic segment");
  }
  // Tags are signed words: a 32-bit file's 0x7fffffff equals the 64-bit one.
  Dynamic dynamic;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t tag = view.word(array + i * entry);
    if (tag == DT_NULL) break;
    note_entry(dynamic, file, tag, view.word(array + i * entry + view.word_size()));
  }
  return dynamic;
}

/// The names in a list with colons, as ld.so's audit_list_next() takes them: those of a file name's length.
Result<void> take_audit_libraries(View& view, const View::Place& strings,
                                  const std::optional<std::uint64_t>& list, ElfFile& file) {
  if (!list) return {};
  JAIL_TRY(text, view.text(strings, *list));
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(':'), text.size());
    if (end > 0 && end < kMaxAuditName) file.audit.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return {};
}

Result<void> take_names(View& view, const Dynamic& dynamic, const View::Place& strings, ElfFile& file) {
  for (const Dynamic::Entry& entry : dynamic.names) {
    JAIL_TRY(name, view.string(strings, entry.value));
    const auto kind = entry.tag == DT_NEEDED      ? Dependency::Kind::needed
                      : entry.tag == DT_AUXILIARY ? Dependency::Kind::auxiliary
                                                  : Dependency::Kind::filter;
    file.dependencies.push_back({kind, std::move(name)});
  }
  if (dynamic.soname) {
    JAIL_TRY(soname, view.string(strings, *dynamic.soname));
    file.soname = std::move(soname);
  }
  JAIL_CHECK(take_audit_libraries(view, strings, dynamic.audit, file));
  JAIL_CHECK(take_audit_libraries(view, strings, dynamic.dependency_audit, file));
  if (dynamic.runpath) {
    JAIL_TRY(runpath, view.string(strings, *dynamic.runpath));
    file.runpath = std::move(runpath);
  } else if (dynamic.rpath) {
    JAIL_TRY(rpath, view.string(strings, *dynamic.rpath));
    file.rpath = std::move(rpath);
  }
  return {};
}

/// The string table: where it is, cut at DT_STRSZ and at the end of its segment.
Result<View::Place> find_strings(const View& view, const Dynamic& dynamic) {
  const auto strings = dynamic.strings ? view.place_of(*dynamic.strings) : std::nullopt;
  if (!strings) {
    return not_in_file("dynamic string table");
  }
  return View::Place{strings->offset, std::min(strings->available, dynamic.strings_size.value_or(0))};
}

Result<void> read_dynamic(View& view, const Segment& segment, ElfFile& file) {
  JAIL_TRY(dynamic, read_array(view, segment, file));
  const bool wants_strings = !dynamic.names.empty() || dynamic.soname || dynamic.rpath || dynamic.runpath ||
                             dynamic.needs || dynamic.definitions || dynamic.audit ||
                             dynamic.dependency_audit;
  if (!wants_strings) return {};
  JAIL_TRY(strings, find_strings(view, dynamic));
  JAIL_CHECK(take_names(view, dynamic, strings, file));
  if (dynamic.needs) {
    JAIL_CHECK(read_version_needs(view, strings, *dynamic.needs, dynamic.needs_count.value_or(0), file));
  }
  if (dynamic.definitions) {
    JAIL_CHECK(read_version_definitions(view, strings, *dynamic.definitions,
                                        dynamic.definitions_count.value_or(0), file));
  }
  const auto symbols = dynamic.symbols ? view.place_of(*dynamic.symbols) : std::nullopt;
  if (symbols) {
    const std::uint64_t size = view.wide() ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);
    const std::uint64_t count = count_symbols(view, dynamic.gnu_hash, dynamic.hash);
    file.symbols = {symbols->offset, std::min({count, symbols->available / size, kMaxSymbolBytes / size}),
                    strings.offset, strings.available};
  }
  return {};
}

Result<void> read_interpreter(View& view, const Segment& segment, ElfFile& file) {
  if (segment.file_size == 0) return not_in_file("PT_INTERP");
  if (segment.file_size < 2 || segment.file_size > kMaxInterpreter) {
    return fail(Exit::manifest, "its PT_INTERP is empty or longer than a path can be: the kernel refuses it");
  }
  const auto size = static_cast<std::size_t>(segment.file_size);
  const std::uint8_t* bytes = view.at(segment.offset, size);
  if (bytes == nullptr) return fail(Exit::manifest, "its PT_INTERP lies outside of the file");
  if (bytes[size - 1] != 0)
    return fail(Exit::manifest, "its PT_INTERP is not terminated: the kernel refuses it");
  const char* text = reinterpret_cast<const char*>(bytes);
  file.interpreter = std::string(text, ::strnlen(text, size));
  return {};
}

/// What ld.so has against e_type: it loads programs and libraries only; nullptr: nothing.
const char* wrong_type(std::uint16_t type) {
  switch (type) {
    case ET_DYN:
    case ET_EXEC:
      return nullptr;
    case ET_REL:
      return "an object file or kernel module (ET_REL): only ET_DYN and ET_EXEC can be loaded";
    case ET_CORE:
      return "a core file (ET_CORE): only ET_DYN and ET_EXEC can be loaded";
    default:
      return "only ET_DYN and ET_EXEC can be loaded";
  }
}

/// e_machine as a loader reads it, which is in its own byte order.
std::uint16_t machine_as_read(const Header& header, const Abi& abi) {
  const bool other_order = (header.abi.data == ELFDATA2MSB) != (abi.data == ELFDATA2MSB);
  const std::uint16_t machine = header.abi.machine;
  return other_order ? static_cast<std::uint16_t>(machine << 8 | machine >> 8) : machine;
}

/// What a loader for `abi` has against e_ident behind magic and class; nullptr: nothing.
const char* wrong_ident(const Header& header, const Abi& abi) {
  const bool gnu = header.os_abi == ELFOSABI_GNU;
  if (header.abi.data != abi.data) return "ELF file data encoding is of the other byte order";
  if (header.ident_version != EV_CURRENT) return "ELF file version ident does not match current one";
  if (header.os_abi != ELFOSABI_SYSV && !gnu) return "ELF file OS ABI invalid";
  if (header.abi_version != 0 && !(gnu && header.abi_version < kMaxGnuAbiVersion))
    return "ELF file ABI version invalid";
  return header.padding_clean ? nullptr : "nonzero padding in e_ident";
}

}  // namespace

bool ElfFile::no_default_libraries() const {
  return (flags_1 & DF_1_NODEFLIB) != 0;
}
bool ElfFile::position_independent_program() const {
  return (flags_1 & DF_1_PIE) != 0;
}

Header read_header(const ByteSource& source) {
  std::uint8_t bytes[sizeof(Elf64_Ehdr)] = {};
  const std::size_t got = source.read(0, bytes, sizeof bytes);
  Header header;
  header.magic = got >= SELFMAG && std::memcmp(bytes, ELFMAG, SELFMAG) == 0;
  // A loader reads as much as its own class asks for; for anything but ELF the larger header stands.
  const bool narrow = header.magic && bytes[EI_CLASS] == ELFCLASS32;
  header.complete = got >= (narrow ? sizeof(Elf32_Ehdr) : sizeof(Elf64_Ehdr));
  if (!header.magic || got < EI_NIDENT) return header;
  header.abi.elf_class = bytes[EI_CLASS];
  header.abi.data = bytes[EI_DATA];
  header.ident_version = bytes[EI_VERSION];
  header.os_abi = bytes[EI_OSABI];
  header.abi_version = bytes[EI_ABIVERSION];
  header.padding_clean =
      std::all_of(bytes + EI_PAD, bytes + EI_NIDENT, [](std::uint8_t byte) { return byte == 0; });
  if (!header.complete) return header;
  const View view(source, header);
  header.type = view.u16(bytes + 16);
  header.abi.machine = view.u16(bytes + 18);
  header.version = view.u32(bytes + 20);
  header.program_headers = narrow ? view.u32(bytes + 28) : view.u64(bytes + 32);
  header.program_header_size = view.u16(bytes + (narrow ? 42 : 54));
  header.program_header_count = view.u16(bytes + (narrow ? 44 : 56));
  return header;
}

Verdict judge(const Header& header, const Abi& abi) {
  using Kind = Verdict::Kind;
  if (!header.complete && !header.magic) return {Kind::fatal, "file too short"};
  if (!header.magic) return {Kind::fatal, "invalid ELF header"};
  if (!header.complete) return {Kind::fatal, "file too short"};
  if (header.abi.elf_class != abi.elf_class) return {Kind::other_class, "wrong ELF class"};
  // Debian's ld.so passes over another machine's file whatever else its first bytes say.
  const bool other_machine = machine_as_read(header, abi) != abi.machine;
  if (const char* problem = wrong_ident(header, abi)) {
    return other_machine ? Verdict{Kind::other_machine, "made for another machine"}
                         : Verdict{Kind::fatal, problem};
  }
  if (header.version != EV_CURRENT) return {Kind::fatal, "ELF file version does not match current one"};
  if (other_machine) return {Kind::other_machine, "made for another machine"};
  if (const char* problem = wrong_type(header.type)) return {Kind::fatal, problem};
  const std::size_t expected = abi.elf_class == ELFCLASS64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
  if (header.program_header_size != expected)
    return {Kind::fatal, "ELF file's phentsize not the expected size"};
  return {};
}

Result<ElfFile> read_elf(const ByteSource& source) {
  ElfFile file;
  file.header = read_header(source);
  const Header& header = file.header;
  if (!header.magic) return fail(Exit::manifest, "not an ELF file");
  if (!header.complete) return fail(Exit::manifest, "file too short");
  if ((header.abi.elf_class != ELFCLASS32 && header.abi.elf_class != ELFCLASS64) ||
      (header.abi.data != ELFDATA2LSB && header.abi.data != ELFDATA2MSB)) {
    return fail(Exit::manifest, "its ELF class or byte order is unknown");
  }
  View view(source, header);
  JAIL_CHECK(view.read_segments(header));
  const Segment* dynamic = nullptr;
  for (const Segment& segment : view.segments()) {
    if (segment.type == PT_LOAD) file.has_load = true;
    if (segment.type == PT_DYNAMIC) dynamic = &segment;  // the last one counts, as in ld.so
    if (segment.type == PT_INTERP && !file.interpreter) JAIL_CHECK(read_interpreter(view, segment, file));
  }
  if (dynamic != nullptr) {
    file.has_dynamic = true;
    JAIL_CHECK(read_dynamic(view, *dynamic, file));
  }
  read_notes(view, file);
  return file;
}

bool calls_anything(const ByteSource& source, const ElfFile& file) {
  if (file.symbols.table == 0 || file.symbols.count == 0) return true;
  View view(source, file.header);
  const std::size_t size = view.wide() ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);
  const auto count = static_cast<std::size_t>(file.symbols.count);
  const std::uint8_t* table = view.at(file.symbols.table, count * size);
  if (table == nullptr) return true;
  for (std::size_t i = 1; i < count; ++i) {
    const std::uint8_t* symbol = table + i * size;
    const unsigned binding = symbol[view.wide() ? 4 : 12] >> 4;
    if (view.u16(symbol + (view.wide() ? 6 : 14)) == SHN_UNDEF && binding == STB_GLOBAL) return true;
  }
  return false;
}

Result<std::vector<std::string>> read_imports(const ByteSource& source, const ElfFile& file,
                                              const Symbols* only) {
  std::vector<std::string> imports;
  if (file.symbols.table == 0 || file.symbols.count == 0) return imports;
  View view(source, file.header);
  View names(source, file.header);
  const bool wide = view.wide();
  const std::size_t size = wide ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);
  const auto count = static_cast<std::size_t>(file.symbols.count);
  const std::uint8_t* table = view.at(file.symbols.table, count * size);
  if (table == nullptr) return fail(Exit::manifest, "its symbol table is not in the file");
  // One read for the whole string table where that is sane; the strings are scattered over it.
  if (file.symbols.strings_size <= Window::max_fetch) {
    (void)names.at(file.symbols.strings, static_cast<std::size_t>(file.symbols.strings_size));
  }
  for (std::size_t i = 1; i < count; ++i) {
    const std::uint8_t* symbol = table + i * size;
    const std::uint16_t section = view.u16(symbol + (wide ? 6 : 14));
    const unsigned binding = symbol[wide ? 4 : 12] >> 4;
    const std::uint32_t name = view.u32(symbol);
    if (section != SHN_UNDEF || name == 0 || (binding != STB_GLOBAL && binding != STB_WEAK)) continue;
    JAIL_TRY(text, names.text({file.symbols.strings, file.symbols.strings_size}, name));
    if (!text.empty() && (only == nullptr || only->contains(text))) imports.emplace_back(text);
  }
  return imports;
}

}  // namespace jail::elf
