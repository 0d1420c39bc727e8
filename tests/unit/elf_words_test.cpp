// The small languages: tokens, search path lists, #! lines, the strings of a loader.
#include <elf.h>

#include "catch.h"
#include "jailer/elf/loader_policy.h"
#include "jailer/elf/script.h"
#include "jailer/elf/tokens.h"

using namespace jail::elf;
using Strings = std::vector<std::string>;

TEST_CASE("tokens, as glibc tells them from other identifiers") {
  const Tokens tokens{"/o", "lib64", std::nullopt};
  CHECK(expand("$ORIGIN/../lib", tokens) == "/o/../lib");
  CHECK(expand("${ORIGIN}x", tokens) == "/ox");
  CHECK(expand("$ORIGINx", tokens) == "$ORIGINx");
  CHECK(expand("$ORIGIN_1", tokens) == "$ORIGIN_1");
  CHECK(expand("${ORIGIN", tokens) == "${ORIGIN");
  CHECK(expand("$ORIGIN/$LIB/$foo$", tokens) == "/o/lib64/$foo$");
  CHECK(expand("$$LIB", tokens) == "$lib64");
  CHECK(expand("/x/$PLATFORM", tokens) == std::nullopt);
  CHECK(has_token("a$b$LIB"));
  CHECK_FALSE(has_token("$O $ORIGINAL"));
}

TEST_CASE("search path lists") {
  const Tokens tokens{"/o", "lib64", std::nullopt};
  CHECK(split_path("", tokens).empty());
  CHECK(split_path("/a:/b//:/a/:/", tokens) == Strings{"/a/", "/b/", "/"});
  CHECK(split_path(":/a", tokens) == Strings{"", "/a/"});
  CHECK(split_path("/a::", tokens) == Strings{"/a/", ""});
  CHECK(split_path("rel:$PLATFORM/x:$ORIGIN", tokens) == Strings{"rel/", "/o/"});
}

TEST_CASE("$ORIGIN of a program that gives its user more than he has") {
  const Strings trusted{"/lib/", "/usr/lib/"};
  Tokens tokens{"/usr/lib/x/bin", "lib64", std::nullopt, true, &trusted};
  const auto dropped = [&](const std::string& text) { return expand(text, tokens) == std::nullopt; };
  CHECK(expand("$ORIGIN", tokens) == "/usr/lib/x/bin");
  CHECK(expand("${ORIGIN}/../$LIB", tokens) == "/usr/lib/x/bin/../lib64");
  CHECK(expand("$ORIGIN/../..", tokens) == "/usr/lib/x/bin/../..");
  CHECK(expand("$ORIGIN/.//../../../../lib/.", tokens) == "/usr/lib/x/bin/.//../../../../lib/.");
  CHECK(dropped("$ORIGIN/../../.."));
  CHECK(dropped("$ORIGIN/../../../libexec"));
  CHECK(dropped("$ORIGIN/../../../../../../opt"));
  CHECK(dropped("/$ORIGIN"));
  CHECK(dropped("${ORIGIN}x"));
  CHECK(dropped("$ORIGIN/$ORIGIN"));
  CHECK(expand("/opt/$LIB", tokens) == "/opt/lib64");  // only $ORIGIN is doubted
  tokens.trusted = nullptr;                            // a library's
  CHECK(expand("$ORIGIN/../../../opt", tokens) == "/usr/lib/x/bin/../../../opt");
  CHECK(dropped("/x/$ORIGIN"));
  CHECK(split_path("$ORIGIN:/x/$ORIGIN:/y", tokens) == Strings{"/usr/lib/x/bin/", "/y/"});
}

TEST_CASE("#! lines") {
  const auto parse = [](const std::string& text) { return parse_script(text); };
  CHECK(!parse("\x7f"
               "ELF")
             .value());
  CHECK(!parse("").value());
  const auto simple = parse("#!/bin/sh\necho");
  REQUIRE((simple && *simple));
  CHECK((*simple)->interpreter == "/bin/sh");
  CHECK((*simple)->argument.empty());
  const auto argument = parse("#! \t/usr/bin/env  python3 -B \t\nx");
  REQUIRE((argument && *argument));
  CHECK((*argument)->interpreter == "/usr/bin/env");
  CHECK((*argument)->argument == "python3 -B");
  CHECK((*parse("#!/bin/sh"))->interpreter == "/bin/sh");
  CHECK_FALSE(parse("#!\n/bin/sh"));
  CHECK_FALSE(parse("#!   "));
  CHECK_FALSE(parse("#!/" + std::string(300, 'a') + "\n"));
  const auto cut = parse("#!/bin/sh " + std::string(300, 'a') + "\n");
  REQUIRE((cut && *cut));
  CHECK((*cut)->argument.size() == 256 - 10);
}

TEST_CASE("a loader's strings are its policy") {
  const Abi abi{ELFCLASS64, ELFDATA2LSB, EM_X86_64};
  const LoaderPolicy table = default_policy(abi);
  CHECK(table.system_dirs ==
        Strings{"/lib/x86_64-linux-gnu/", "/usr/lib/x86_64-linux-gnu/", "/lib/", "/usr/lib/"});
  CHECK(table.subdirectories.size() == 4);
  const std::string loader(
      "x\0/lib64/\0/usr/lib64/\0y\0lib64\0/opt/etc/ld.so.cache\0x86-64-v4:x86-64-v3:x86-64-v2\0", 81);
  const LoaderPolicy read = read_policy(abi, loader);
  CHECK(read.system_dirs == Strings{"/lib64/", "/usr/lib64/"});
  CHECK(read.lib == "lib64");
  CHECK(read.cache == "/opt/etc/ld.so.cache");
  CHECK(read.subdirectories.size() == 4);
  const std::string legacy = loader + std::string("\0tls\0", 5);
  const LoaderPolicy old = read_policy(abi, legacy + "(GLIBC 2.36-9) stable release version 2.36.");
  CHECK(old.subdirectories.size() == 3 + 31 + 1);
  CHECK(old.subdirectories.back().name.empty());
  CHECK(read_policy(abi, legacy + "(GLIBC 2.41-3) stable release version 2.41.").subdirectories.size() == 4);
  const std::string after_code(
      "\xe5\xff/lib/arm-linux-gnueabihf/\0/usr/lib/arm-linux-gnueabihf/\0/lib/\0/usr/lib/\0", 73);
  CHECK(read_policy({ELFCLASS32, ELFDATA2LSB, EM_ARM}, after_code).system_dirs ==
        Strings{"/lib/arm-linux-gnueabihf/", "/usr/lib/arm-linux-gnueabihf/", "/lib/", "/usr/lib/"});
  CHECK(read_policy(abi, std::string(1000, '/')).system_dirs == table.system_dirs);
  CHECK(default_policy({ELFCLASS64, ELFDATA2LSB, 999}).system_dirs == Strings{"/lib/", "/usr/lib/"});
}

TEST_CASE("a processor searches the subdirectories of what it can do") {
  const std::string loader("\0x86-64-v4:x86-64-v3:x86-64-v2\0\0tls\0", 36);
  const LoaderPolicy policy = read_policy({ELFCLASS64, ELFDATA2LSB, EM_X86_64}, loader);
  const auto searched = [&](const Capabilities& capabilities) {
    Strings names;
    for (const Subdirectory& one : for_processor(policy, capabilities).subdirectories) {
      if (!one.variant()) names.push_back(one.name);
    }
    return names;
  };
  const Strings everywhere{"tls/x86_64/x86_64/", "tls/x86_64/", "tls/x86_64/", "tls/",
                           "x86_64/x86_64/",     "x86_64/",     "x86_64/",     ""};
  CHECK(searched({}) == everywhere);
  Strings with_v2 = everywhere;
  with_v2.insert(with_v2.begin(), "glibc-hwcaps/x86-64-v2/");
  CHECK(searched({"x86-64-v2"}) == with_v2);
  CHECK(capabilities_for(policy, "glibc-hwcaps/x86-64-v3") == Capabilities{"x86-64-v3", "x86-64-v2"});
  CHECK(capabilities_for(policy, "tls/haswell/avx512_1") == Capabilities{"haswell", "avx512_1"});
  CHECK(capabilities_for(policy, "nothing").empty());
}
