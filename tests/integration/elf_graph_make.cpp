// See elf_graph.h.
#include <elf.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "elf_graph.h"
#include "unit/elf_maker.h"

namespace jail::elf::testing {
namespace {

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

// exit(0)
const std::string kExit64("\x31\xff\xb8\x3c\x00\x00\x00\x0f\x05", 9);
const std::string kExit32("\x31\xdb\xb8\x01\x00\x00\x00\xcd\x80", 9);

class GraphMaker {
 public:
  GraphMaker(const MachineLoader& loader, Graph& graph, std::seed_seq& seed)
      : loader_(loader), graph_(graph), random_(seed) {}

  void make() {
    plan_directories();
    filters_ = chance(35);
    for (const std::string& level : loader_.levels) {
      if (chance(50) || !graph_.levels.empty()) graph_.levels.push_back(level);
    }
    for (const std::string& name : kNames) make_copies(name);
    make_program();
  }

 private:
  const Strings kNames{"libr0.so", "libr1.so", "libr2.so", "libr3.so", "libr4.so", "libr5.so"};

  unsigned below(unsigned limit) { return static_cast<unsigned>(random_() % limit); }
  bool chance(unsigned percent) { return below(100) < percent; }
  const std::string& one_of(const Strings& all) { return all[below(static_cast<unsigned>(all.size()))]; }
  std::string at(const std::string& path) const { return graph_.directory + "/" + path; }

  void plan_directories() {
    folders_ = {"a", "b", "c", loader_.lib};
    if (loader_.plain_platform) folders_.push_back(loader_.wide ? "p/x86_64" : "p/i686");
    for (const std::string& folder : folders_) fs::create_directories(at(folder));
  }

  /// A directory as a search path says it.
  std::string element() {
    const unsigned kind = below(40);
    if (kind < 10) return at(one_of(folders_));
    if (kind < 18) return "$ORIGIN/../" + one_of(folders_);
    if (kind < 24) return "${ORIGIN}/../" + one_of(folders_);
    if (kind < 26) return at("$LIB");
    if (kind < 28) return at("${LIB}/");
    if (kind < 30 && loader_.plain_platform) return at("p/$PLATFORM");
    if (kind < 31) return "$ORIGIN";
    static const Strings odd{"",      "$ORIGINx/../a", "$ORIGIN_/../b",  "/nowhere", "$NOTHING",
                             "${LIB", "relative/path", "$ORIGIN/../a//", "///"};
    return one_of(odd);
  }

  std::string path_list() {
    std::string list = element();
    for (unsigned left = 2 + below(4); left > 0; --left) list += ":" + element();
    return list;
  }

  void add_paths(Maker& maker, unsigned percent) {
    if (!chance(percent)) return;
    const unsigned kind = below(20);
    if (kind < 10) maker.names.emplace_back(DT_RPATH, path_list());
    if (kind >= 9) maker.names.emplace_back(DT_RUNPATH, path_list());
    if (kind == 18) maker.names.back().second = "";
  }

  /// A file of the graph below `directory`, one that is there more often than not.
  std::string some_file(const std::string& directory) {
    if (!files_.empty() && !chance(10)) return directory + one_of(files_);
    return directory + one_of(folders_) + "/" + one_of(kNames);
  }

  /// What a DT_NEEDED or a filter may say.
  std::string need() {
    const unsigned kind = below(200);
    if (kind < 168 || (kind < 190 && filters_)) return one_of(kNames);
    if (kind < 176) return some_file(at(""));
    if (kind < 182) return some_file("$ORIGIN/../");
    if (kind < 186) return some_file("${ORIGIN}/../");
    if (kind < 190) return "libc.so.6";
    if (kind < 193) return "";
    if (kind < 195) graph_.vdso = true;
    if (kind < 195) return loader_.wide ? "linux-vdso.so.1" : "linux-gate.so.1";
    if (kind < 197) return loader_.path.substr(loader_.path.rfind('/') + 1);
    static const Strings odd{"libmissing.so", "libalias.so",       "./a/libr0.so",
                             "$LIB/libr1.so", "$ORIGINx/libr2.so", "$ORIGIN"};
    return one_of(odd);
  }

  /// A program has no filters here: ld.so loses sight of what the program itself filters, and would load it
  /// twice.
  void add_needs(Maker& maker, const std::string& owner, unsigned least, unsigned most) {
    for (unsigned left = least + below(most - least + 1); left > 0; --left) {
      const std::string name = need();
      const unsigned kind = owner.empty() || name == owner || !filters_ ? 99 : below(100);
      if (kind < 10) graph_.optional.push_back(name);
      maker.names.emplace_back(kind < 10 ? DT_AUXILIARY : kind < 17 ? DT_FILTER : DT_NEEDED, name);
      const bool plain = name.find_first_of("/$") == std::string::npos && name.starts_with("libr");
      if (kind >= 17 && plain && chance(15))
        maker.version_needs.push_back({name, chance(50) ? "V_1" : "V_2", chance(25)});
    }
  }

  Maker library(const std::string& name) {
    Maker maker;
    maker.wide = loader_.wide;
    maker.machine = loader_.wide ? EM_X86_64 : EM_386;
    maker.values.emplace_back(DT_SYMTAB, 64);  // any place will do: nothing is ever looked up
    const unsigned kind = below(100);
    if (kind < 72) maker.soname = name;
    if (kind >= 90 && !filters_) maker.soname = kind < 95 ? one_of(kNames) : "libalias.so";
    add_needs(maker, name, 0, 2);
    add_paths(maker, 70);
    if (chance(5)) maker.values.emplace_back(DT_FLAGS_1, DF_1_NODEFLIB);
    if (chance(40)) maker.version_definitions = {name};
    if (!maker.version_definitions.empty() && chance(70)) maker.version_definitions.emplace_back("V_1");
    if (!maker.version_definitions.empty() && chance(70)) maker.version_definitions.emplace_back("V_2");
    return maker;
  }

  void write(const std::string& path, const std::string& bytes) {
    std::ofstream(at(path), std::ios::binary) << bytes;
  }

  /// A file that no loader takes: some it passes over, at others it gives up.
  void make_decoy(const std::string& path, Maker maker) {
    switch (below(16)) {
      case 0:
        return write(path, "INPUT(/lib/libnothing.so.1) /* a linker script, and long enough for a header */");
      case 1:
        return write(path, "");
      case 2:
        return write(path,
                     "\x7f"
                     "ELF");
      case 3:
        fs::create_directories(at(path));
        return;
      case 4:
        maker.big = true;
        break;
      case 5:
        maker.values.emplace_back(DT_FLAGS_1, DF_1_PIE);
        break;
      case 6:
        fs::create_symlink("nowhere", at(path));
        return;
      case 7:
        fs::create_symlink(path.substr(path.rfind('/') + 1), at(path));
        return;
      case 8:
        maker.type = ET_REL;
        break;
      case 9:
      case 10:
      case 11:
        maker.machine = EM_AARCH64;
        break;
      default:
        maker.wide = !maker.wide;
        maker.machine = maker.wide ? EM_X86_64 : EM_386;
    }
    write(path, maker.make());
  }

  /// One copy of a library: a file, a link to one that is there, or a decoy.
  void make_copy(const std::string& path, const std::string& name) {
    if (fs::exists(fs::symlink_status(at(path)))) return;
    fs::create_directories(fs::path(at(path)).parent_path());
    const unsigned kind = below(100);
    if (kind < 7 && !files_.empty()) {
      fs::create_symlink(at(one_of(files_)), at(path));
    } else if (kind < 12 && !files_.empty()) {
      fs::create_hard_link(at(one_of(files_)), at(path));
    } else if (kind < 16) {
      return make_decoy(path, library(name));
    } else {
      write(path, library(name).make());
    }
    files_.push_back(path);
  }

  void make_copies(const std::string& name) {
    for (unsigned left = 2 + below(3); left > 0; --left) {
      const std::string& folder = one_of(folders_);
      if (!chance(4)) make_copy(folder + "/" + name, name);
      if (!loader_.levels.empty() && chance(15))
        make_copy(folder + "/glibc-hwcaps/" + one_of(loader_.levels) + "/" + name, name);
      if (!loader_.legacy.empty() && chance(5)) make_copy(folder + "/" + one_of(loader_.legacy) + name, name);
    }
  }

  void make_program() {
    Maker maker = library("prog");
    maker.names.clear();
    maker.version_needs.clear();
    maker.values = {{DT_SYMTAB, 64}};
    maker.soname.clear();
    add_needs(maker, "", 1, 4);
    add_paths(maker, 97);
    const bool program = chance(80);
    if (program) {
      maker.interpreter = loader_.path;
      maker.code = loader_.wide ? kExit64 : kExit32;
      if (chance(50)) maker.values.emplace_back(DT_FLAGS_1, DF_1_PIE);
    }
    graph_.program = at("a/prog");
    write("a/prog", maker.make());
    fs::permissions(graph_.program, fs::perms(0755));
    if (!program || !chance(25)) return;
    graph_.link = at("c/linked");
    fs::create_symlink("../a/prog", graph_.link);
  }

  const MachineLoader& loader_;
  Graph& graph_;
  std::mt19937_64 random_;
  /// Where objects filter others no two that are loaded have one soname, by a path say: a filtee moves to the
  /// front of what ld.so goes through for a name, so that which of the two answers depends on when it is
  /// asked.
  bool filters_ = false;
  Strings folders_;
  Strings files_;  ///< that a link may lead to
};

}  // namespace

Graph make_graph(const MachineLoader& loader, const std::string& directory, unsigned long seed,
                 unsigned number) {
  Graph graph;
  graph.directory = directory;
  fs::create_directories(directory);
  std::seed_seq sequence{seed, static_cast<unsigned long>(number)};
  GraphMaker(loader, graph, sequence).make();
  return graph;
}

}  // namespace jail::elf::testing
