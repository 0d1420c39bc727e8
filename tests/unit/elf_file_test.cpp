#include "jailer/elf/elf_file.h"

#include "catch.h"
#include "elf_maker.h"

using namespace jail;
using namespace jail::elf;
using jail::elf::testing::Maker;

namespace {

Maker full() {
  Maker maker;
  maker.interpreter = "/lib64/ld.so";
  maker.soname = "libself.so.1";
  maker.names = {
      {DT_NEEDED, "liba.so"},   {DT_AUXILIARY, "libaux.so"}, {DT_FILTER, "libfilter.so"},
      {DT_NEEDED, "libb.so"},   {DT_RPATH, "/old"},          {DT_RUNPATH, "/new"},
      {DT_DEPAUDIT, "late.so"}, {DT_AUDIT, "lost.so"},       {DT_AUDIT, "audit.so::$ORIGIN/b.so:"}};
  maker.values = {{DT_FLAGS_1, DF_1_NODEFLIB | DF_1_PIE}};
  maker.symbols = {{"dlopen", true}, {"main", false}, {"iconv_open", true}};
  maker.version_needs = {{"liba.so", "A_1"}, {"libb.so", "B_2"}};
  maker.version_definitions = {"libself.so.1", "S_1"};
  maker.note = R"([{"soname":["libx.so"]}])";
  return maker;
}

}  // namespace

TEST_CASE("a file is read alike in both classes and byte orders") {
  for (const bool wide : {false, true}) {
    for (const bool big : {false, true}) {
      CAPTURE(wide, big);
      Maker maker = full();
      maker.wide = wide;
      maker.big = big;
      const std::string bytes = maker.make();
      const MemorySource source(bytes);
      const auto read = read_elf(source);
      if (!read) FAIL(read.error().message);
      CHECK(read->header.abi ==
            Abi{static_cast<std::uint8_t>(wide ? 2 : 1), static_cast<std::uint8_t>(big ? 2 : 1), EM_X86_64});
      CHECK(read->interpreter == "/lib64/ld.so");
      CHECK(read->soname == "libself.so.1");
      REQUIRE(read->dependencies.size() == 4);
      CHECK(read->dependencies[1].kind == Dependency::Kind::auxiliary);
      CHECK(read->dependencies[2].kind == Dependency::Kind::filter);
      CHECK(read->dependencies[3].name == "libb.so");
      CHECK(!read->rpath);  // a RUNPATH deletes it
      CHECK(read->runpath == "/new");
      CHECK(read->audit == std::vector<std::string>{"audit.so", "$ORIGIN/b.so", "late.so"});
      CHECK(read->no_default_libraries());
      CHECK(read->position_independent_program());
      REQUIRE(read->version_needs.size() == 2);
      CHECK(read->version_needs[1].file == "libb.so");
      CHECK(read->version_needs[1].version == "B_2");
      CHECK(read->version_definitions == std::vector<std::string>{"libself.so.1", "S_1"});
      CHECK(read->dlopen_notes == std::vector<std::string>{R"([{"soname":["libx.so"]}])"});
      const auto imports = read_imports(source, *read);
      REQUIRE(imports);
      CHECK(*imports == std::vector<std::string>{"dlopen", "iconv_open"});
      CHECK(judge(read->header, read->header.abi).kind == Verdict::Kind::take);
    }
  }
}

TEST_CASE("a file cut anywhere is an error or an answer, never a crash") {
  const std::string bytes = full().make();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const std::string cut = bytes.substr(0, size);
    const MemorySource source(cut);
    const auto read = read_elf(source);
    if (read) (void)read_imports(source, *read);
    CHECK_FALSE(read);  // the dynamic segment is the last thing in the file
  }
}

TEST_CASE("any byte may be any value") {
  const std::string good = full().make();
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const char value : {'\x00', '\x01', '\x7f', '\xff'}) {
      std::string bytes = good;
      bytes[at] = value;
      const MemorySource source(bytes);
      const auto read = read_elf(source);
      if (read) (void)read_imports(source, *read);
    }
  }
  SUCCEED();
}

TEST_CASE("what ld.so passes over, and what it gives up at") {
  const std::string good = Maker{}.make();
  const Abi abi{ELFCLASS64, ELFDATA2LSB, EM_X86_64};
  const auto verdict = [&](std::size_t at, char value) {
    std::string bytes = good;
    bytes[at] = value;
    return judge(read_header(MemorySource(bytes)), abi);
  };
  CHECK(verdict(EI_CLASS, ELFCLASS32).kind == Verdict::Kind::other_class);
  CHECK(verdict(18, EM_386).kind == Verdict::Kind::other_machine);
  CHECK(verdict(0, 'x').reason == std::string("invalid ELF header"));
  CHECK(verdict(EI_DATA, ELFDATA2MSB).kind == Verdict::Kind::fatal);
  CHECK(verdict(EI_VERSION, 2).kind == Verdict::Kind::fatal);
  CHECK(verdict(EI_OSABI, ELFOSABI_GNU).kind == Verdict::Kind::take);
  CHECK(verdict(EI_OSABI, ELFOSABI_FREEBSD).kind == Verdict::Kind::fatal);
  CHECK(verdict(EI_ABIVERSION, 1).kind == Verdict::Kind::fatal);
  CHECK(verdict(EI_PAD, 1).kind == Verdict::Kind::fatal);
  CHECK(verdict(16, ET_REL).kind == Verdict::Kind::fatal);
  CHECK(verdict(54, 1).kind == Verdict::Kind::fatal);
  CHECK(judge(read_header(MemorySource("")), abi).reason == std::string("file too short"));
  CHECK(judge(read_header(MemorySource(std::string(100, 'x'))), abi).reason ==
        std::string("invalid ELF header"));
}

TEST_CASE("hostile counts cost nothing") {
  SECTION("PN_XNUM") {
    std::string bytes = Maker{}.make();
    bytes[56] = bytes[57] = '\xff';
    CHECK_FALSE(read_elf(MemorySource(bytes)));
  }
  SECTION("a string table that never ends") {
    Maker maker;
    maker.names = {{DT_NEEDED, "liba.so"}};
    std::string bytes = maker.make();
    for (char& byte : bytes) {
      if (byte == 'a') byte = 'b';  // still one string
    }
    CHECK(read_elf(MemorySource(bytes)));
  }
  SECTION("the same long name a million times") {
    Maker maker;
    maker.names = {{DT_NEEDED, std::string(60000, 'x')}};
    for (int i = 0; i < 100000; ++i) maker.values.emplace_back(DT_NEEDED, 1);
    const std::string bytes = maker.make();
    const auto read = read_elf(MemorySource(bytes));
    REQUIRE_FALSE(read);
    CHECK(read.error().message.find("32 MiB") != std::string::npos);
  }
}
