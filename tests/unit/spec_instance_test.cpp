#include "catch.h"
#include "supervisor/spec/instance.h"

using namespace jail;

TEST_CASE("names of jails") {
  for (const char* good : {"named", "smtpd-opensmtpd", "a", "0", "web@eu-1", "a.b_c"})
    CHECK(valid_name(good));
  for (const char* bad : {"", ".", "..", "-x", "a/b", "A", "a b", "a@", "@a", "a@b@c", "a\n", "../x"})
    CHECK_FALSE(valid_name(bad));
  CHECK_FALSE(valid_name(std::string(65, 'a')));
}

TEST_CASE("--home holds a whole instance") {
  auto instance = find_instance("/srv/x/", "/srv/m");
  REQUIRE(instance);
  CHECK(instance->state == "/srv/x/state");
  CHECK(instance->control_socket() == "/srv/x/run/control");
  CHECK(instance->manifest_dirs.back() == "/srv/m");
  CHECK(instance->config("named") == "/srv/x/config/named");
  CHECK(instance->own_manifests() == "/srv/x/manifests");
}

TEST_CASE("the system's own instance follows the FHS") {
  auto instance = find_instance({}, {});
  REQUIRE(instance);
  CHECK(instance->config("named") == "/etc/jail/named");
  CHECK(instance->own_manifests() == instance->manifest_dirs.back());
}
