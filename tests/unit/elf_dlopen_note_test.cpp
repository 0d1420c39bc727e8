#include "catch.h"
#include "jailer/elf/dlopen_note.h"

using namespace jail;
using namespace jail::elf;

TEST_CASE("a note names alternatives, a feature and a priority") {
  const auto needs = read_dlopen_note(
      R"([{"soname":["libfoo.so.2","libfoo.so.1"],"feature":"foo","description":"Foos","priority":"suggested"},
          {"soname":["libbar.so.1"],"priority":"required","more":{"later":1}},
          {"soname":["libbaz.so.1"]}])");
  REQUIRE(needs);
  REQUIRE(needs->size() == 3);
  CHECK((*needs)[0].sonames == std::vector<std::string>{"libfoo.so.2", "libfoo.so.1"});
  CHECK((*needs)[0].feature == "foo");
  CHECK((*needs)[0].description == "Foos");
  CHECK((*needs)[0].priority == DlopenPriority::suggested);
  CHECK((*needs)[1].priority == DlopenPriority::required);
  CHECK((*needs)[1].feature.empty());
  CHECK((*needs)[2].priority == DlopenPriority::recommended);  // the specification's default
  CHECK(std::string(to_text((*needs)[0].priority)) == "suggested");
  CHECK(read_dlopen_note("[]")->empty());
}

TEST_CASE("a note that is not as it must be is refused with the reason") {
  const std::pair<const char*, const char*> notes[] = {
      {"", "not JSON"},
      {"[{]", "not JSON"},
      {"[{\"soname\":[\"lib\xff.so\"]}]", "not JSON"},
      {R"({"soname":["libx.so"]})", "not a JSON array"},
      {"[1]", "an entry is not an object"},
      {R"([{"feature":"x"}])", "without an array of sonames"},
      {R"([{"soname":"libx.so"}])", "without an array of sonames"},
      {R"([{"soname":[]}])", "without an array of sonames"},
      {R"([{"soname":[1]}])", "its soname is not a string"},
      {R"([{"soname":[["libx.so"]]}])", "its soname is not a string"},
      {R"([{"soname":[""]}])", "is no soname"},
      {R"([{"soname":["../x.so"]}])", "is no soname"},
      {R"([{"soname":["/etc/shadow"]}])", "is no soname"},
      {R"([{"soname":["libx.so"],"priority":"urgent"}])", "'urgent' is no priority"},
      {R"([{"soname":["libx.so"],"priority":7}])", "its priority is not a string"},
      {R"([{"soname":["libx.so"],"feature":"a\nb"}])", "its feature holds a control character"},
      {R"([{"soname":["libx.so\u0000"]}])", "its soname holds a control character"},
  };
  for (const auto& [note, reason] : notes) {
    CAPTURE(note);
    const auto needs = read_dlopen_note(note);
    REQUIRE_FALSE(needs);
    CHECK(needs.error().message.find(reason) != std::string::npos);
  }
}

TEST_CASE("a note is bounded") {
  CHECK_FALSE(read_dlopen_note(std::string(60'000, '[')));
  CHECK(read_dlopen_note(std::string(70'000, ' ') + "[]").error().message == "longer than 64 KiB");
  std::string many = "[";
  for (int i = 0; i < 300; ++i) many += std::string(i == 0 ? "" : ",") + R"({"soname":["a"]})";
  CHECK(read_dlopen_note(many + "]").error().message == "more than 256 entries");
  std::string names = R"([{"soname":[)";
  for (int i = 0; i < 40; ++i) names += std::string(i == 0 ? "" : ",") + R"("a")";
  CHECK(read_dlopen_note(names + "]}]").error().message == "more than 32 alternatives");
  CHECK_FALSE(read_dlopen_note(R"([{"soname":[")" + std::string(256, 'a') + R"("]}])"));
}
