// Reads what the dynamic loader reads of an ELF file: program headers and the dynamic segment, never section
// headers (they may be stripped). Both classes, both byte orders. Every offset and count is hostile: bad ones
// are an Error, and what is allocated is bounded by the file's size and fixed limits.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "jailer/elf/source.h"
#include "supervisor/base/error.h"

namespace jail::elf {

/// What a loader serves: only files of the same three numbers are loaded together.
struct Abi {
  std::uint8_t elf_class = 0;  ///< ELFCLASS32 or ELFCLASS64
  std::uint8_t data = 0;       ///< ELFDATA2LSB or ELFDATA2MSB
  std::uint16_t machine = 0;   ///< EM_X86_64 ...
  friend bool operator==(const Abi&, const Abi&) = default;
};

/// The ELF header. Without the magic number only `magic` means anything.
struct Header {
  bool complete = false;  ///< the file holds a whole header
  bool magic = false;
  bool padding_clean = true;
  Abi abi;
  std::uint8_t ident_version = 0;
  std::uint8_t os_abi = 0;
  std::uint8_t abi_version = 0;
  std::uint16_t type = 0;
  std::uint32_t version = 0;
  std::uint64_t program_headers = 0;  ///< offset in the file
  std::uint16_t program_header_size = 0;
  std::uint16_t program_header_count = 0;
};

/// What ld.so makes of a candidate (its open_verify): take it, look further, or give up at once.
struct Verdict {
  enum class Kind : std::uint8_t { take, other_class, other_machine, fatal };
  Kind kind = Kind::take;
  const char* reason = "";  ///< ld.so's own words
};

/// A DT_NEEDED, DT_AUXILIARY or DT_FILTER entry.
struct Dependency {
  enum class Kind : std::uint8_t { needed, auxiliary, filter };
  Kind kind = Kind::needed;
  std::string name;
};

/// A symbol version that some loaded library must define.
struct VersionNeed {
  std::string file;
  std::string version;
  bool weak = false;
};

struct ElfFile {
  Header header;
  std::optional<std::string> interpreter;  ///< PT_INTERP, without its NUL
  bool has_dynamic = false;
  bool has_load = false;
  std::string soname;
  std::vector<Dependency> dependencies;  ///< in the order of the dynamic array
  std::optional<std::string> rpath;      ///< dropped when there is a runpath, as ld.so does
  std::optional<std::string> runpath;
  std::vector<std::string> audit;  ///< the names in DT_AUDIT, then in DT_DEPAUDIT: code that would run in it
  std::vector<VersionNeed> version_needs;
  std::vector<std::string> version_definitions;
  bool has_version_definitions = false;
  std::uint32_t flags = 0;                ///< DT_FLAGS
  std::uint32_t flags_1 = 0;              ///< DT_FLAGS_1
  std::uint32_t isa_needed = 0;           ///< GNU_PROPERTY_X86_ISA_1_NEEDED
  std::vector<std::string> dlopen_notes;  ///< JSON of each .note.dlopen, as it stands in the file

  /// Where the dynamic symbols are; for read_imports().
  struct Symbols {
    std::uint64_t table = 0;  ///< file offset; 0: none
    std::uint64_t count = 0;
    std::uint64_t strings = 0;  ///< file offset
    std::uint64_t strings_size = 0;
  } symbols;

  [[nodiscard]] bool no_default_libraries() const;          ///< DF_1_NODEFLIB
  [[nodiscard]] bool position_independent_program() const;  ///< DF_1_PIE
};

/// The first bytes of the file. A file that is too short or not ELF gives a Header that says so.
[[nodiscard]] Header read_header(const ByteSource& source);

/// The checks of ld.so's open_verify, in its order (rules G26 and G27), for a loader that serves `abi`.
[[nodiscard]] Verdict judge(const Header& header, const Abi& abi);

/// Program headers, dynamic segment, versions, notes. Messages say what is wrong with the file, without its
/// name.
[[nodiscard]] Result<ElfFile> read_elf(const ByteSource& source);

/// Whether a file that read_elf() has read imports any symbol that it cannot do without; true where that
/// cannot be told.
[[nodiscard]] bool calls_anything(const ByteSource& source, const ElfFile& file);

/// A set of symbols that can be asked by a view.
struct SymbolHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view name) const noexcept { return std::hash<std::string_view>()(name); }
};
using Symbols = std::unordered_set<std::string, SymbolHash, std::equal_to<>>;

/// The undefined dynamic symbols of a file that read_elf() has read, in table order; those of `only`, where
/// that is given.
[[nodiscard]] Result<std::vector<std::string>> read_imports(const ByteSource& source, const ElfFile& file,
                                                            const Symbols* only = nullptr);

}  // namespace jail::elf
