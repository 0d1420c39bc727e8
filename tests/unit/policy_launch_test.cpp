#include "catch.h"
#include "jailer/policy/policy.h"

namespace {

using namespace jail;

Accounts accounts() {
  Accounts a;
  a.users = {{"root", 0, 0, "", "/root", "/bin/sh"},
             {"bind", 103, 110, "", "/var/cache/bind", "/usr/sbin/nologin"}};
  a.groups = {{"root", 0, {}}, {"bind", 110, {}}, {"adm", 4, {}}, {"ssl-cert", 111, {}}};
  return a;
}

Instance instance() {
  Instance i;
  i.state = "/var/lib/jail";
  return i;
}

manifest::Manifest named() {
  manifest::Manifest m;
  m.name = "named";
  m.service.command = {"/usr/sbin/named", "-f"};
  m.service.user = "bind";
  m.service.groups = {"ssl-cert", "adm", "adm"};
  m.service.environment = {{"TZ", "UTC"}, {"HOME", "/elsewhere"}};
  m.service.reload = "SIGHUP";
  m.service.ready = {"notify", "listen"};
  m.sandbox.capabilities = {"net_bind_service"};
  m.sandbox.listen = {"udp:53", "tcp:53"};
  m.provides = {"dns", "authority"};
  m.sources = {{"/etc/jail/manifests/named.toml", "ab"}};
  m.configs.push_back({"/etc/bind/keys", "/etc/bind/keys", true});
  m.configs.push_back({"/etc/bind", "/etc/bind", false});
  m.volumes.push_back({"named-cache", "/var/cache/bind", "bind", "", 0750, false});
  m.tree.devices = {"null"};
  return m;
}

}  // namespace

TEST_CASE("ports are restricted where the manifest speaks of them, be it to say none") {
  manifest::Manifest m = named();
  m.service.ready.clear();
  m.sandbox.listen.clear();
  auto spec = make_launch_spec(instance(), m, accounts());
  REQUIRE(spec);
  CHECK_FALSE(spec->restrict_ports);
  m.origins["sandbox.portsmouth"] = {};
  m.origins["sandbox.pids"] = {};
  CHECK_FALSE(make_launch_spec(instance(), m, accounts())->restrict_ports);
  SECTION("none") {
    m.origins["sandbox.ports.connect"] = {};
  }
  SECTION("one") {
    m.sandbox.connect = {"tcp:25"};
    m.sandbox.optional = {"tcp:953"};
  }
  spec = make_launch_spec(instance(), m, accounts());
  REQUIRE(spec);
  CHECK(spec->restrict_ports);
  CHECK(spec->connect_ports.size() == m.sandbox.connect.size());
  CHECK(spec->optional_ports.size() == m.sandbox.optional.size());
  CHECK(spec->listen_ports.size() == m.sandbox.listen.size());  // what readiness waits for
}

TEST_CASE("names become numbers, and parents are mounted before what lies in them") {
  const auto spec = make_launch_spec(instance(), named(), accounts());
  INFO((spec ? std::string() : spec.error().message));
  REQUIRE(spec);
  CHECK(spec->credentials.uid == 103);
  CHECK(spec->credentials.gid == 110);
  CHECK(spec->credentials.groups == std::vector<std::uint32_t>{4, 111});
  CHECK(spec->credentials.capabilities == 1U << 10U);
  CHECK(spec->reload == Reload{Reload::How::signal, 1});
  CHECK(spec->ready.notify);
  CHECK(spec->ready.listen);
  CHECK(spec->listen_ports == std::vector<Port>{{Port::Protocol::udp, 53}, {Port::Protocol::tcp, 53}});
  CHECK(spec->connect_ports.empty());
  CHECK(spec->restrict_ports);
  CHECK(spec->hostname == "named");
  CHECK(spec->provides == std::vector<std::string>{"authority", "dns"});
  CHECK(spec->rlimits == std::vector<Rlimit>{{"core", 0, 0}, {"nofile", 1024, 524288, true}});
  CHECK(spec->sources == std::vector<ManifestSource>{{"/etc/jail/manifests/named.toml", "ab"}});

  std::vector<std::string> targets;
  for (const Mount& mount : spec->mounts) targets.push_back(mount.target);
  CHECK(targets == std::vector<std::string>{"/dev", "/proc", "/tmp", "/run", "/etc/bind", "/etc/bind/keys",
                                            "/var/cache/bind"});
  CHECK(spec->mounts[2].mode == 01777);
  CHECK(spec->mounts[2].writable);
  CHECK_FALSE(spec->mounts[2].exec);
  CHECK_FALSE(spec->mounts[4].writable);
  CHECK(spec->mounts[5].optional);
  CHECK(spec->mounts[6].source == "/var/lib/jail/volumes/named-cache");
  CHECK(spec->mounts[6].writable);

  const std::vector<std::string> env = {"HOME=/elsewhere", "LOGNAME=bind",
                                        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                        "TZ=UTC", "USER=bind"};
  CHECK(spec->env == env);
  const auto read = launch_spec_from_json(to_json(*spec), "test");
  REQUIRE(read);
  CHECK(*read == *spec);
}

TEST_CASE("a network is a word, or the name of a namespace") {
  auto m = named();
  m.sandbox.network = "netns:blue";
  const auto spec = make_launch_spec(instance(), m, accounts());
  REQUIRE(spec);
  CHECK(spec->network == LaunchSpec::Network::named);
  CHECK(spec->network_name == "blue");
  for (const char* text : {"netns:", "netns:../x", "netns", "blue"}) {
    CAPTURE(text);
    m.sandbox.network = text;
    CHECK_FALSE(make_launch_spec(instance(), m, accounts()));
  }
}

TEST_CASE("sockets are laid out one by one, their owners as numbers") {
  auto m = named();
  m.sandbox.listen.clear();
  m.sockets.push_back({"dns", {"udp:53", "tcp:[2001:DB8::1]:53"}, 16, "root", "", 0600});
  m.sockets.push_back({"local", {"unix:/run/x/dns"}, 4096, "bind", "adm", 0660});
  const auto spec = make_launch_spec(instance(), m, accounts());
  INFO((spec ? std::string() : spec.error().message));
  REQUIRE(spec);
  CHECK(spec->ready.listen);
  CHECK(spec->sockets == std::vector<Socket>{{"dns", "udp:53", 16, 0600, 0, 0},
                                             {"dns", "tcp:[2001:db8::1]:53", 16, 0600, 0, 0},
                                             {"local", "unix:/run/x/dns", 4096, 0660, 103, 4}});
  m.sockets[1].owner = "bnid";
  const auto unknown = make_launch_spec(instance(), m, accounts());
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().message.find("no such user: 'bnid'") != std::string::npos);
}

TEST_CASE("a log socket gets a sealed directory of its own, before which the volume it is in is mounted") {
  auto m = named();
  m.service.log_sockets = {"/var/cache/bind/dev/log", "/var/cache/bind/dev/log2"};
  const auto spec = make_launch_spec(instance(), m, accounts());
  INFO((spec ? std::string() : spec.error().message));
  REQUIRE(spec);
  CHECK(spec->log_sockets == m.service.log_sockets);
  REQUIRE(spec->mounts.size() == 8);
  CHECK(spec->mounts[6].target == "/var/cache/bind");
  CHECK(spec->mounts[7].target == "/var/cache/bind/dev");
  CHECK(spec->mounts[7].kind == Mount::Kind::tmpfs);
  CHECK_FALSE(spec->mounts[7].writable);
  for (const char* path :
       {"/log", "/dev/log", "/run/log", "/a/../log", "/var/cache/bind/log", "log", "/a/log/"}) {
    INFO(path);
    m.service.log_sockets = {path};
    CHECK_FALSE(make_launch_spec(instance(), m, accounts()));
  }
}

TEST_CASE("what would be mounted over the jail's own is refused") {
  for (const char* target : {"/", "/dev", "/dev/x", "/proc/sys", "/sys", "/run", "/tmp",
                             "/run/systemd/notify", "relative", "/a/../b", "/a//b", "/var/cache/bind"}) {
    auto m = named();
    m.configs.push_back({"/etc/x", target, false});
    INFO(target);
    CHECK_FALSE(make_launch_spec(instance(), m, accounts()));
  }
  auto m = named();
  m.volumes.push_back({"run", "/run/named", "bind", "", 0750, false});
  CHECK(make_launch_spec(instance(), m, accounts()));
}

TEST_CASE("all unknown names are told at once") {
  auto m = named();
  m.service.user = "bnid";
  m.service.groups = {"nogroup-here"};
  m.sandbox.capabilities = {"net_bind"};
  m.sandbox.require = {"mdew"};
  m.sandbox.listen = {"udp:0"};
  m.service.stop.signal = "SIGNOTHING";
  m.origins["service.user"] = {"named.toml", 7, 3};
  const auto spec = make_launch_spec(instance(), m, accounts());
  REQUIRE_FALSE(spec);
  const std::string& text = spec.error().message;
  INFO(text);
  CHECK(text.find("named.toml:7:3: no such user: 'bnid'") != std::string::npos);
  for (const char* word : {"nogroup-here", "net_bind", "mdew", "udp:0", "SIGNOTHING"})
    CHECK(text.find(word) != std::string::npos);
}
