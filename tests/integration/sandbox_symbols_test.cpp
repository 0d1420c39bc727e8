// What the code between clone and exec may call: an allocation, a lock or an exception there would be an
// undefined symbol of its object that is not in the list below.
#include <set>
#include <sstream>

#include "catch.h"
#include "run_program.h"

using namespace jail::test;

namespace {

const std::set<std::string> allowed = {
    "clone",             // plain assembly: it runs its function on the new stack and touches nothing else
    "__errno_location",  // read once, after a clone that made no task
    "memcpy",
    "memset",            // what compilers make of copies and initialisers
    "__stack_chk_fail",  // -fstack-protector
};

/// Of the sanitizers' builds.
bool instrumentation(const std::string& name) {
  return name.starts_with("__asan_") || name.starts_with("__ubsan_") || name == "_GLOBAL_OFFSET_TABLE_";
}

/// The undefined symbols of each member of an archive, as `nm -u --format=posix` tells them:
/// "libx.a[a.cpp.o]:", then "NAME U" a line.
std::set<std::string> undefined_of(const std::string& archive, const std::string& member) {
  const Ran nm = run_program({"nm", "-u", "--format=posix", archive});
  INFO(nm.output);
  REQUIRE(nm.status == 0);
  std::set<std::string> names;
  bool here = false;
  int members = 0;
  std::istringstream lines(nm.output);
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with("]:")) {
      here = line.ends_with("[" + member + "]:");
      members += here ? 1 : 0;
    } else if (here && !line.empty()) {
      names.insert(line.substr(0, line.find(' ')));
    }
  }
  REQUIRE(members == 1);
  return names;
}

}  // namespace

TEST_CASE("nothing between clone and exec allocates, locks or throws", "[sandbox]") {
  const std::string member = GENERATE("after_fork.cpp.o", "join_after_fork.cpp.o", "steps.cpp.o");
  std::set<std::string> names = undefined_of(JAIL_SANDBOX_ARCHIVE, member);
  // That these are the objects, and that nm told their symbols: one makes a task, and the two that give an
  // order of steps call them.
  CHECK(names.count("clone") == (member == "after_fork.cpp.o" ? 1 : 0));
  const std::size_t steps =
      std::erase_if(names, [](const std::string& name) { return name.starts_with("_ZN4jail7sandbox"); });
  CHECK((steps > 10) == (member != "steps.cpp.o"));
  for (const std::string& name : names) {
    INFO(name);
    CHECK((allowed.count(name) == 1 || instrumentation(name)));
  }
}
