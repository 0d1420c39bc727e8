// What must hold between the values of a manifest.
#include "catch.h"
#include "manifest_fixture.h"

using namespace jail;
using jail::test::least;
using jail::test::Manifests;

TEST_CASE("rules between values") {
  struct Case {
    const char* more;      // behind the least manifest
    const char* expected;  // the only problem; empty: none
  };
  static const Case cases[] = {
      {"ready = \"check\"\n", "d.toml:8:9: service.ready: \"check\" needs a [check] command"},
      {"ready = \"check\"\n[check]\ncommand = [\"true\"]\n", ""},
      {"ready = \"listen\"\n",
       "d.toml:8:9: service.ready: \"listen\" needs [sandbox] ports.listen or a [[socket]]: what should it "
       "wait "
       "for?"},
      {"ready = \"listen\"\n[[socket]]\nname = \"s\"\nlisten = \"tcp:993\"\n", ""},
      {"[[socket]]\nname = \"s\"\nlisten = [\"tcp:0.0.0.0:1\", \"tcp:[::]:1\"]\n", ""},
      {"[[socket]]\nname = \"s\"\nlisten = \"tcp:1\"\n[[socket]]\nname = \"t\"\nlisten = \"tcp:[::1]:1\"\n",
       "d.toml:13:10: socket.t.listen: 'tcp:[::1]:1' and 'tcp:1' of 's' cannot both be bound"},
      {"[[socket]]\nname = \"s\"\nlisten = []\n",
       "d.toml:10:10: socket.s.listen: an empty list listens nowhere"},
      {"[[socket]]\nname = \"a:b\"\nlisten = \"tcp:1\"\n",
       "d.toml:9:8: socket.a:b.name: 'a:b' is not a socket's name (letters, digits, '-', '_', '.'; 64 bytes "
       "at "
       "most)"},
      {"[[socket]]\nname = \"s\"\nlisten = \"tcp:1\"\nmode = \"0666\"\n",
       "d.toml:11:8: socket.s.mode: is for unix sockets: whoever reaches an address may connect to it"},
      {"[[socket]]\nname = \"s\"\nlisten = \"unix:/run/s\"\nmode = \"0666\"\nowner = \"mail\"\n", ""},
      {"[[socket]]\nname = \"s\"\n", "d.toml:8:1: [[socket]] lacks the key 'listen', which has no default"},
      {"ready = \"listen\"\n[sandbox]\nports.listen = [\"udp:53\"]\n", ""},
      {"[[volume]]\nname = \"v\"\npath = \"/v\"\nowner = \"uu\"\n",
       "d.toml:11:9: volume.v.owner: the user 'uu' is not in the tree; add it to [tree] users"},
      {"[[volume]]\nname = \"v\"\npath = \"/v\"\ndirectories = [{ path = \"a\" }, { path = \"a/b\" }]\n", ""},
      {"[[volume]]\nname = \"v\"\npath = \"/v\"\ndirectories = [{ path = \"a/b\" }]\n",
       "d.toml:11:16: volume.v.directories.a/b: its parent 'a' is not in the list"},
      {"[[volume]]\nname = \"v\"\npath = \"/v\"\ndirectories = [{ path = \"a\", owner = \"uu\" }]\n",
       "d.toml:11:38: volume.v.directories.a.owner: the user 'uu' is not in the tree; add it to [tree] "
       "users"},
      {"[[volume]]\nname = \"v\"\npath = \"/v\"\n[[volume]]\nname = \"v\"\npath = \"/w\"\n",
       "d.toml:11:1: [[volume]]: 'v' is there already (line 8)"},
      {"[[volume]]\nname = \"v\"\npath = \"/v\"\n[[config]]\nfrom = \"/v\"\n",
       "d.toml:10:8: volume.v.path: '/v' is claimed by the config '/v' already"},
      {"[[config]]\nfrom = \"/a\"\n[[config]]\nfrom = \"/b\"\nto = \"/a\"\n",
       "d.toml:10:1: [[config]]: '/a' is there already (line 8)"},
      {"log_sockets = [\"/v/dev/log\"]\n[[volume]]\nname = \"v\"\npath = \"/v\"\n", ""},
      {"log_sockets = [\"/dev/log\"]\n",
       "d.toml:8:16: service.log_sockets[0]: '/dev' is at or below /dev, which is the jail's own"},
      {"log_sockets = [\"/v/log\"]\n[[volume]]\nname = \"v\"\npath = \"/v\"\n",
       "d.toml:8:16: service.log_sockets[0]: '/v' is claimed by the volume 'v' already"},
      {"[[volume]]\nname = \"v\"\npath = \"/\"\n",
       "d.toml:10:8: volume.v.path: cannot be mounted over the jail's root"},
      {"[[volume]]\nname = \"v\"\npath = \"/dev/x\"\n",
       "d.toml:10:8: volume.v.path: '/dev/x' is at or below /dev, which is the jail's own"},
      {"[[volume]]\nname = \"v\"\npath = \"/device\"\n", ""},
      {"[[volume]]\nname = \"v\"\npath = \"/run/v\"\n", ""},
      {"[[config]]\nfrom = \"/x\"\nto = \"/proc\"\n",
       "d.toml:10:6: config./proc.to: '/proc' is at or below /proc, which is the jail's own"},
      {"[[config]]\nto = \"/x\"\n", "d.toml:8:1: [[config]] lacks the key 'from', which has no default"},
      {"[[tree.files]]\nto = \"/x\"\n",
       "d.toml:8:1: tree.files./x: needs 'from' (a source) or 'text' (the content)"},
      {"[[tree.files]]\nto = \"/x\"\nfrom = \"/y\"\ntext = \"\"\n",
       "d.toml:8:1: tree.files./x: has both 'from' and 'text'; a file has one source"},
      {"[[tree.files]]\nto = \"/x\"\ntext = \"\"\nxattrs = [\"user.a\"]\n",
       "d.toml:11:10: tree.files./x.xattrs: are copied from a source, and 'text' has none"},
      {"[[tree.files]]\nto = \"/v/x\"\ntext = \"\"\n[[volume]]\nname = \"v\"\npath = \"/v\"\n",
       "d.toml:9:6: tree.files./v/x.to: '/v/x' would be hidden by the volume 'v', mounted at '/v'"},
      {"[[tree.files]]\nto = \"/run/x\"\ntext = \"\"\n",
       "d.toml:9:6: tree.files./run/x.to: '/run/x' would be hidden by the jail's own empty /run; use a "
       "volume"},
  };
  const Manifests m;
  for (const Case& c : cases) {
    CAPTURE(c.more);
    CHECK(m.problems(least + std::string(c.more)) == c.expected);
  }
}

TEST_CASE("the command is one of the tree's binaries, the user one of its users") {
  const Manifests m;
  CHECK(m.problems("version = 1\n[tree]\nbinaries = [\"/usr/sbin/d\"]\nusers = []\n"
                   "[service]\ncommand = [\"/usr/sbin/e\", \"-f\"]\nuser = \"u\"\n") ==
        "d.toml:6:12: service.command[0]: '/usr/sbin/e' is not in the tree; add it to [tree] binaries; did "
        "you mean "
        "'/usr/sbin/d'?\n"
        "d.toml:7:8: service.user: the user 'u' is not in the tree; add it to [tree] users");
  CHECK(m.problems("version = 1\n[tree]\nbinaries = [\"/usr/sbin/d\"]\nusers = []\n"
                   "[service]\ncommand = [\"d\"]\nuser = \"root\"\n") ==
        "d.toml:6:12: service.command[0]: 'd' is relative; expected the absolute path of a binary");
  CHECK(m.problems("version = 2\n[tree]\nbinaries = [\"/d\"]\nusers = []\n[service]\ncommand = "
                   "[\"/d\"]\nuser = \"root\"") ==
        "d.toml:1:11: version 2 is not known; this jail reads version 1");
}
