// The search order, masks, drop-ins, templates.
#include "catch.h"
#include "jailer/manifest/render.h"
#include "manifest_fixture.h"

using namespace jail;
using namespace jail::manifest;
using jail::test::least;
using jail::test::Manifests;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
std::string described(const std::string& words) {
  return "description = \"" + words + "\"\n" + least;
}

}  // namespace

TEST_CASE("the stronger directory masks, a link to /dev/null disables") {
  const Manifests m;
  m.write("vendor/d.toml", described("vendor"));
  m.write("etc/d.toml", described("etc"));
  m.write("vendor/other.toml", least);
  m.write("vendor/x@.toml", least);
  m.write("vendor/Bad.toml", least);
  CHECK(load(m.instance, "d")->description == "etc");
  CHECK(names(m.instance) == std::vector<std::string>{"d", "other"});
  m.mask("etc/other.toml");
  CHECK(names(m.instance) == std::vector<std::string>{"d"});
  const auto masked = load(m.instance, "other");
  REQUIRE_FALSE(masked);
  CHECK(masked.error().exit == Exit::no_input);
  CHECK(contains(masked.error().hint, "/etc/other.toml is a link to /dev/null"));
  m.write("etc/empty.toml", "");
  CHECK(load(m.instance, "empty").error().exit ==
        Exit::manifest);  // an empty file is a manifest without keys
}

TEST_CASE("a manifest that is not there") {
  const Manifests m;
  m.write("vendor/named.toml", least);
  const auto loaded = load(m.instance, "nmaed");
  REQUIRE_FALSE(loaded);
  CHECK(loaded.error().exit == Exit::no_input);
  CHECK(contains(loaded.error().message, "did you mean 'named'?"));
  for (const std::string& directory : m.instance.manifest_dirs)
    CHECK(contains(loaded.error().hint, directory));
  CHECK(load(m.instance, "Named").error().exit == Exit::usage);
  CHECK(load(m.instance, m.root + "/none.toml").error().exit == Exit::no_input);
  CHECK(load(m.instance, std::string("a\0b", 3)).error().exit == Exit::usage);
  m.write("vendor/dir.toml/x", "");
  CHECK_FALSE(load(m.instance, "dir"));
}

TEST_CASE("drop-ins apply in the order of their names, whatever directory they are in") {
  const Manifests m;
  m.write("vendor/d.toml", described("manifest"));
  m.write("etc/d.toml.d/10-a.toml", "description = \"a\"\n[tree]\nusers = [\"v\", \"u\"]\n");
  m.write("vendor/d.toml.d/20-b.toml", "description = \"b\"\n[service]\nuser = \"v\"\n");
  m.write("vendor/d.toml.d/10-a.toml", "description = \"hidden by the same name in etc\"\nnonsense = 1\n");
  m.write("run/d.toml.d/30-c.toml", "description = \"c\"\n");
  m.mask("etc/d.toml.d/30-c.toml");
  m.write("etc/d.toml.d/notes.txt", "not TOML");
  const auto loaded = load(m.instance, "d");
  REQUIRE(loaded);
  CHECK(loaded->description == "b");
  CHECK(loaded->service.user == "v");
  CHECK(loaded->tree.users == std::vector<std::string>{"u", "v"});
  CHECK(loaded->where("tree.users[1]") == "d.toml.d/10-a.toml:3:10: ");
  CHECK(loaded->where("tree.users[0]") == "d.toml:5:10: ");
  REQUIRE(loaded->sources.size() == 3);
  CHECK(loaded->sources[1].path == m.root + "/etc/d.toml.d/10-a.toml");
}

TEST_CASE("lists append, commands replace, entries merge by identity, environment by key") {
  const Manifests m;
  m.write("vendor/d.toml", std::string(least) +
                               "environment = { A = \"1\", B = \"2\" }\nrestart.delay = "
                               "\"1s\"\n[sandbox]\nsyscalls = [\"@default\"]\n"
                               "[[volume]]\nname = \"v\"\npath = \"/v\"\n[[config]]\nfrom = \"/etc/x\"\n");
  m.write("etc/d.toml.d/a.toml",
          "[tree]\ndevices = [\"kvm\"]\n[service]\ncommand = [\"/usr/sbin/d\", \"-x\"]\nenvironment = { B = "
          "\"3\", C = \"4\" }\n"
          "restart.on = \"always\"\n[sandbox]\nsyscalls = [\"@network-server\", "
          "\"@default\"]\n[[volume]]\nname = \"v\"\n"
          "mode = \"0700\"\n[[volume]]\nname = \"w\"\npath = \"/w\"\n[[config]]\nfrom = \"/srv/x\"\nto = "
          "\"/etc/x\"\n");
  const auto loaded = load(m.instance, "d");
  REQUIRE(loaded);
  CHECK(loaded->service.command == std::vector<std::string>{"/usr/sbin/d", "-x"});
  CHECK(loaded->service.environment ==
        std::map<std::string, std::string>{{"A", "1"}, {"B", "3"}, {"C", "4"}});
  CHECK(loaded->service.restart.on == "always");
  CHECK(loaded->service.restart.delay == milliseconds(1000));
  CHECK(loaded->sandbox.syscalls == std::vector<std::string>{"@default", "@network-server"});
  CHECK(loaded->tree.devices == std::vector<std::string>{"full", "null", "random", "urandom", "zero", "kvm"});
  REQUIRE(loaded->volumes.size() == 2);
  CHECK(loaded->volumes[0].path == "/v");
  CHECK(loaded->volumes[0].mode == 0700);
  CHECK(loaded->where("volume.v.mode") == "d.toml.d/a.toml:11:8: ");
  CHECK(loaded->where("volume.v.path") == "d.toml:14:8: ");
  REQUIRE(loaded->configs.size() == 1);
  CHECK(loaded->configs[0].from == "/srv/x");
  CHECK(loaded->configs[0].to == "/etc/x");
}

TEST_CASE("[remove] takes away, and what is not there cannot be taken") {
  const Manifests m;
  m.write("vendor/d.toml", std::string(least) +
                               "nice = 5\nenvironment.A = \"1\"\n[[volume]]\nname = \"v\"\npath = \"/v\"\n"
                               "[[config]]\nfrom = \"/c\"\n[[tree.files]]\nto = \"/f\"\ntext = \"\"\n");
  m.write("etc/d.toml.d/a.toml",
          "[remove]\nvolume = [\"v\"]\nconfig = [\"/c\"]\ntree.files = [\"/f\"]\nservice.nice = true\n"
          "service.environment.A = true\ntree.devices = [\"full\"]\ntree.binaries = [\"/usr/sbin/d\"]\n"
          "[tree]\nbinaries = [\"/usr/sbin/e\"]\n[service]\ncommand = [\"/usr/sbin/e\"]\n");
  const auto loaded = load(m.instance, "d");
  REQUIRE(loaded);
  CHECK(loaded->volumes.empty());
  CHECK(loaded->configs.empty());
  CHECK(loaded->tree.files.empty());
  CHECK(loaded->service.nice == 0);
  CHECK(loaded->service.environment.empty());
  CHECK(loaded->tree.binaries == std::vector<std::string>{"/usr/sbin/e"});
  CHECK(loaded->tree.devices == std::vector<std::string>{"null", "random", "urandom", "zero"});

  m.write("etc/d.toml.d/b.toml",
          "[remove]\nvolume = [\"v\"]\ntree.libraries = [\"x\"]\nservice.nice = true\nservice.user = "
          "\"u\"\nvolum = []\n"
          "check = true\nservice.restart.delay = true\nversion = [1]\n");
  CHECK(
      load(m.instance, "d").error().message ==
      "d.toml.d/b.toml:2:11: [remove]: 'v' of volume is not there to be taken away\n"
      "d.toml.d/b.toml:3:19: [remove]: 'x' of tree.libraries is not there to be taken away\n"
      "d.toml.d/b.toml:4:9: [remove]: 'service.nice' is not there to be taken away\n"
      "d.toml.d/b.toml:5:16: remove.service.user: expected true, which takes the whole value away, not a "
      "string\n"
      "d.toml.d/b.toml:6:1: unknown key 'volum' in [remove]; did you mean 'volume'?\n"
      "d.toml.d/b.toml:7:1: [remove]: 'check' is not there to be taken away\n"
      "d.toml.d/b.toml:8:17: [remove]: 'service.restart.delay' is not there to be taken away\n"
      "d.toml.d/b.toml:9:11: remove.version: expected true, which takes the whole value away, not an array");

  m.write("etc/d.toml.d/b.toml", "[remove]\ntree.devices = true\n[tree]\ndevices = [\"null\"]\n");
  CHECK(load(m.instance, "d")->tree.devices == std::vector<std::string>{"null"});
  CHECK(contains(m.problems("[remove]\n" + std::string(least)), "[remove] has a meaning in drop-ins only"));
}

TEST_CASE("the problems of all files at once, also of values that a drop-in replaces") {
  const Manifests m;
  m.write("vendor/d.toml", std::string(least) + "nice = 99\n");
  m.write("etc/d.toml.d/a.toml", "[service]\nnice = 1\numsk = \"0022\"\n");
  m.write("etc/d.toml.d/b.toml", "broken =\n");
  const auto loaded = load(m.instance, "d");
  REQUIRE_FALSE(loaded);
  CHECK(contains(loaded.error().message, "d.toml:8:8: service.nice: 99 is out of range"));
  CHECK(contains(loaded.error().message,
                 "\nd.toml.d/a.toml:3:1: unknown key 'umsk' in [service]; did you mean 'umask'?"));
  CHECK(contains(loaded.error().message, "\nd.toml.d/b.toml:1:"));
  CHECK(contains(loaded.error().hint, m.root + "/etc/d.toml.d/a.toml"));
}

TEST_CASE("templates") {
  const Manifests m;
  m.write("vendor/web@.toml", "description = \"web %i, 100%%\"\n" + std::string(least) +
                                  "[[volume]]\nname = \"web-%i\"\npath = \"/srv/%i\"\n");
  m.write("etc/web@.toml.d/a.toml", "[service]\nnice = 1\numask = \"0027\"\n");
  m.write("etc/web@eu.toml.d/a.toml", "[service]\nnice = 2\n");
  const auto eu = load(m.instance, "web@eu");
  REQUIRE(eu);
  CHECK(eu->name == "web@eu");
  CHECK(eu->description == "web eu, 100%");
  CHECK(eu->volumes.at(0).name == "web-eu");
  CHECK(eu->volumes.at(0).path == "/srv/eu");
  CHECK(eu->service.nice == 2);
  CHECK(eu->service.umask == 0022);  // the instance's a.toml masks the template's
  CHECK(eu->sandbox.hostname == "web-eu");
  CHECK(load(m.instance, "web@us")->service.nice == 1);
  CHECK(load(m.instance, m.root + "/vendor/web@eu.toml")->name == "web@eu");
  CHECK(load(m.instance, "web@").error().exit == Exit::usage);
  CHECK(load(m.instance, "web").error().exit == Exit::no_input);
  m.write("vendor/bad@.toml", "description = \"%n\"\n" + std::string(least));
  CHECK(
      contains(load(m.instance, "bad@x").error().message, "bad@.toml:1:15: '%n' is not known in a template"));
  m.write("vendor/d.toml", "description = \"50%\"\n" + std::string(least));
  CHECK(load(m.instance, "d")->description == "50%");
}

TEST_CASE("a path, its own drop-ins, and those of its name") {
  const Manifests m;
  m.write("home/d.toml", described("path"));
  m.write("home/d.toml.d/x.toml", "[service]\nnice = 1\n");
  m.write("etc/d.toml.d/x.toml", "[service]\nnice = 2\n");
  m.write("etc/d.toml.d/y.toml", "[service]\numask = \"0027\"\n");
  const auto loaded = load(m.instance, m.root + "/home/d.toml");
  REQUIRE(loaded);
  CHECK(loaded->name == "d");
  CHECK(loaded->service.nice == 1);
  CHECK(loaded->service.umask == 0027);
  CHECK(loaded->where("description") == m.root + "/home/d.toml:1:15: ");
  m.write("home/Bad Name.toml", least);
  CHECK(load(m.instance, m.root + "/home/Bad Name.toml").error().exit == Exit::manifest);
}

TEST_CASE("what is shown reads back as the same manifest") {
  const Manifests m;
  m.write("vendor/d.toml", "description = \"a \\\"b\\\" \\u0001 \\\\ \\n\"\n" + std::string(least) +
                               "environment = { A = \"1\", \"B\" = \"2\" }\nrestart.delay = \"1500ms\"\n"
                               "[[tree.files]]\nto = \"/f\"\ntext = \"x\\ty\"\nmode = "
                               "\"0600\"\n[sandbox]\nlimits.memory = \"1536K\"\n"
                               "ports.listen = [\"udp:53\"]\n[[volume]]\nname = \"v\"\npath = \"/v\"\n"
                               "directories = [{ path = \"a\", mode = \"1730\" }, { path = \"a/b\" "
                               "}]\n[check]\ncommand = [\"dig\", \"" +
                               std::string(100, 'x') + "\"]\n");
  m.write("etc/d.toml.d/a.toml", "[tree]\nusers = [\"v\"]\n");
  const auto first = load(m.instance, "d");
  REQUIRE(first);
  for (const bool defaults : {false, true}) {
    m.write("home/d.toml", to_text(*first, defaults));
    Instance other;
    const auto second = load(other, m.root + "/home/d.toml");
    REQUIRE(second);
    auto left = *first, right = *second;
    for (auto* manifest : {&left, &right}) manifest->origins.clear(), manifest->sources.clear();
    CHECK(to_json(left) == to_json(right));
  }
  CHECK(contains(to_text(*first, false),
                 "\"v\",                                          # d.toml.d/a.toml:2\n"));
  CHECK(contains(to_text(*first, true), "umask = \"0022\"                                  # default\n"));
  CHECK_FALSE(contains(to_text(*first, false), "umask"));
  CHECK(to_json(*first).ends_with("}\n"));
}
