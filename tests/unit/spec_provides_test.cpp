#include "catch.h"
#include "supervisor/spec/provides.h"

using namespace jail;

TEST_CASE("services exclude each other by a name that both provide; each provides its own") {
  const Provider post{"post", {}};
  const Provider blue{"post-blue", {"post"}};
  const Provider red{"post-red", {"letters", "post"}};
  const Provider plain{"post-plain", {}};
  const Provider letters{"letters", {}};
  CHECK(provided_by_both(post, blue) == "post");
  CHECK(provided_by_both(blue, post) == "post");
  CHECK(provided_by_both(blue, red) == "post");
  CHECK(provided_by_both(letters, red) == "letters");
  for (const Provider& one : {post, blue, red, letters}) {
    CHECK_FALSE(provided_by_both(one, one));
    CHECK_FALSE(provided_by_both(one, plain));
  }
  CHECK_FALSE(provided_by_both(letters, blue));
  // Instances of one template share what it provides, and nothing else.
  CHECK(provided_by_both({"relay@a", {"relay"}}, {"relay@b", {"relay"}}) == "relay");
  CHECK_FALSE(provided_by_both({"relay@a", {}}, {"relay@b", {}}));
}

TEST_CASE("what was never built provides its name alone") {
  Instance instance;
  instance.state = "/nonexistent";
  CHECK(provides_of(instance, "post").empty());
  CHECK(provides_of(instance, "../post").empty());
  CHECK_FALSE(excluded_by_enabled(instance, "post"));
}
