// ELF files made in memory, in any class and byte order: a dynamic segment, its strings, symbols, versions,
// notes.
#pragma once

#include <elf.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace jail::elf::testing {

struct MadeNeed {
  std::string file;
  std::string version;
  bool weak = false;
};

struct Maker {
  bool wide = true;
  bool big = false;
  std::uint16_t machine = EM_X86_64;
  std::uint16_t type = ET_DYN;
  std::string interpreter;
  std::string soname;
  std::vector<std::pair<std::uint64_t, std::string>> names;  ///< DT_NEEDED and the like, DT_RPATH, DT_RUNPATH
  std::vector<std::pair<std::uint64_t, std::uint64_t>> values;  ///< other entries
  std::vector<std::pair<std::string, bool>> symbols;            ///< name, undefined
  std::vector<MadeNeed> version_needs;
  std::vector<std::string> version_definitions;
  std::string note;  ///< JSON of a .note.dlopen
  std::string code;  ///< where the program starts

  std::string bytes;

  void number(std::uint64_t value, int size) {
    for (int i = 0; i < size; ++i) bytes += static_cast<char>(value >> (8 * (big ? size - 1 - i : i)));
  }
  void word(std::uint64_t value) { number(value, wide ? 8 : 4); }
  void align() { bytes.resize((bytes.size() + 15) / 16 * 16); }

  std::string strings = std::string(1, '\0');
  std::uint32_t text(const std::string& value) {
    const auto at = static_cast<std::uint32_t>(strings.size());
    strings += value + std::string(1, '\0');
    return at;
  }

  struct Piece {
    std::uint64_t offset = 0, size = 0;
  };
  Piece since(std::size_t start) const { return {start, bytes.size() - start}; }

  void segment(std::uint32_t kind, Piece piece) {
    number(kind, 4);
    if (wide) number(5, 4);
    for (int i = 0; i < 3; ++i) word(piece.offset);  // offset, vaddr, paddr: the file is mapped at 0
    word(piece.size);
    word(piece.size);
    if (!wide) number(5, 4);
    word(kind == PT_LOAD ? 4096 : 16);
  }

  /// The file. Addresses equal offsets; one PT_LOAD holds it all.
  std::string make() {
    bytes = std::string(ELFMAG, 4) + static_cast<char>(wide ? ELFCLASS64 : ELFCLASS32) +
            static_cast<char>(big ? ELFDATA2MSB : ELFDATA2LSB) + '\x01' + std::string(9, '\0');
    const std::size_t header = wide ? 64 : 52;
    const std::size_t entry = wide ? 56 : 32;
    bytes.resize(header + 5 * entry);
    align();
    const std::uint64_t start_of_code = code.empty() ? 0 : bytes.size();
    bytes += code;
    align();
    std::vector<std::pair<std::uint64_t, std::uint64_t>> dynamic;
    for (const auto& [tag, name] : names) dynamic.emplace_back(tag, text(name));
    if (!soname.empty()) dynamic.emplace_back(DT_SONAME, text(soname));
    dynamic.insert(dynamic.end(), values.begin(), values.end());
    add_symbols(dynamic);
    add_versions(dynamic);
    const Piece note_piece = add_note();
    std::size_t start = bytes.size();
    bytes += strings;
    dynamic.emplace_back(DT_STRTAB, start);
    dynamic.emplace_back(DT_STRSZ, strings.size());
    align();
    start = bytes.size();
    bytes += interpreter + std::string(1, '\0');
    const Piece interpreter_piece = since(start);
    align();
    start = bytes.size();
    for (const auto& [tag, value] : dynamic) {
      word(tag);
      word(value);
    }
    word(0);
    word(0);
    const Piece dynamic_piece = since(start);
    const Piece load{0, bytes.size()};
    std::string body = std::move(bytes);
    bytes = body.substr(0, 16);
    write_header(header, entry, start_of_code);
    segment(interpreter.empty() ? std::uint32_t{PT_NULL} : std::uint32_t{PT_PHDR}, {header, 5 * entry});
    segment(PT_LOAD, load);
    segment(PT_DYNAMIC, dynamic_piece);
    segment(interpreter.empty() ? std::uint32_t{PT_NULL} : std::uint32_t{PT_INTERP}, interpreter_piece);
    segment(note.empty() ? std::uint32_t{PT_NULL} : std::uint32_t{PT_NOTE}, note_piece);
    return bytes + body.substr(bytes.size());
  }

 private:
  void write_header(std::size_t header, std::size_t entry, std::uint64_t start_of_code) {
    number(type, 2);
    number(machine, 2);
    number(1, 4);
    word(start_of_code);
    word(header);
    word(0);
    number(0, 4);
    number(header, 2);
    number(entry, 2);
    number(5, 2);
    number(0, 6);
  }

  void add_symbols(std::vector<std::pair<std::uint64_t, std::uint64_t>>& dynamic) {
    if (symbols.empty()) return;
    dynamic.emplace_back(DT_SYMTAB, bytes.size());
    bytes.append(wide ? 24 : 16, '\0');
    for (const auto& [name, undefined] : symbols) {
      number(text(name), 4);
      if (!wide) number(0, 8);
      number(STB_GLOBAL << 4, 1);
      number(0, 1);
      number(undefined ? 0 : 1, 2);
      if (wide) number(0, 16);
    }
    align();
    dynamic.emplace_back(DT_HASH, bytes.size());
    number(0, 4);
    number(symbols.size() + 1, 4);
    align();
  }

  void add_versions(std::vector<std::pair<std::uint64_t, std::uint64_t>>& dynamic) {
    if (!version_needs.empty() || !version_definitions.empty()) {
      dynamic.emplace_back(DT_VERSYM, bytes.size());
      bytes.append(16, '\0');
    }
    if (!version_needs.empty()) {
      dynamic.emplace_back(DT_VERNEED, bytes.size());
      dynamic.emplace_back(DT_VERNEEDNUM, version_needs.size());
    }
    for (std::size_t i = 0; i < version_needs.size(); ++i) {
      number(1, 2);
      number(1, 2);
      number(text(version_needs[i].file), 4);
      number(16, 4);
      number(i + 1 < version_needs.size() ? 32 : 0, 4);
      number(0, 4);
      number(version_needs[i].weak ? VER_FLG_WEAK : 0, 2);
      number(2, 2);
      number(text(version_needs[i].version), 4);
      number(0, 4);
    }
    if (!version_definitions.empty()) {
      dynamic.emplace_back(DT_VERDEF, bytes.size());
      dynamic.emplace_back(DT_VERDEFNUM, version_definitions.size());
    }
    for (std::size_t i = 0; i < version_definitions.size(); ++i) {
      number(1, 2);
      number(0, 2);
      number(i + 1, 2);
      number(1, 2);
      number(0, 4);
      number(20, 4);
      number(i + 1 < version_definitions.size() ? 28 : 0, 4);
      number(text(version_definitions[i]), 4);
      number(0, 4);
    }
    align();
  }

  Piece add_note() {
    const std::size_t start = bytes.size();
    if (note.empty()) return since(start);
    number(4, 4);
    number(note.size() + 1, 4);
    number(0x407c0c0a, 4);
    bytes += std::string("FDO\0", 4) + note + std::string(1, '\0');
    bytes.resize((bytes.size() + 3) / 4 * 4);
    const Piece piece = since(start);
    align();
    return piece;
  }
};

}  // namespace jail::elf::testing
