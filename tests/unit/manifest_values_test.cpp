// Each kind of value: what is taken, what is refused, and in which words.
#include <vector>

#include "catch.h"
#include "manifest_fixture.h"

using namespace jail;
using namespace jail::manifest;
using jail::test::least;
using jail::test::Manifests;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct Case {
  const char* where;  // a table and a key: "[service]\numask"
  const char* good;   // TOML values, separated by '|'
  const char* bad;
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find('|', at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

// Puts `line` behind the header of `table` in the least manifest, or the table behind it all.
std::string with(const std::string& table, const std::string& line) {
  std::string text = least;
  const std::size_t at = text.find(table + "\n");
  if (table.empty()) return line + "\n" + text;
  if (at == std::string::npos) return text + table + "\n" + line + "\n";
  return text.insert(at + table.size() + 1, line + "\n");
}

}  // namespace

TEST_CASE("the least manifest gets every default") {
  const Manifests m;
  m.write("vendor/d.toml", least);
  const auto loaded = load(m.instance, "d");
  REQUIRE(loaded);
  CHECK(loaded->name == "d");
  CHECK(loaded->tree.devices == std::vector<std::string>{"full", "null", "random", "urandom", "zero"});
  CHECK(loaded->sandbox.syscalls == std::vector<std::string>{"@default"});
  CHECK(loaded->service.ready == std::vector<std::string>{"started"});
  CHECK(loaded->sandbox.hostname == "d");
  CHECK(loaded->sandbox.limits.core == 0U);
  CHECK_FALSE(loaded->sandbox.limits.memory);
  CHECK_FALSE(loaded->check);
  CHECK(loaded->where("service.user") == "d.toml:7:8: ");
  CHECK(loaded->where("tree.binaries[0]") == "d.toml:3:13: ");
  CHECK(loaded->where("tree.binaries[7].x") == "d.toml:3:12: ");
  CHECK(loaded->where("nothing").empty());
  REQUIRE(loaded->sources.size() == 1);
  CHECK(loaded->sources[0].sha256.size() == 64);
}

TEST_CASE("values that are taken and values that are not") {
  static const Case cases[] = {
      {"\nprovides", R"("smtpd"|["smtpd"]|["smtpd", "a.b_c-d"]|[])",
       R"(""|"Smtpd"|"a@b"|"../x"|"-a"|["smtpd", "smtpd"]|[1]|1|true)"},
      {"[service]\nready_timeout", R"("100ms"|"30s"|"2m"|"1h"|"1d")",
       R"("30"|30|"s"|"-1s"|" 1s"|"1s "|"1.5s"|"99999999999999999999s"|"366d"|""|true|"0s")"},
      {"[service]\numask", R"("0022"|"022"|"0077")",
       R"("22"|18|0o22|"0o22"|"0980"|"00022"|"4022"|"-022"|"")"},
      {"[service]\nreload", R"("refuse"|"restart"|"SIGHUP"|"SIGUSR1")",
       R"("HUP"|"sighup"|"SIGNOT"|1|"reload"|"")"},
      {"[service]\nready", R"("notify"|"started"|["notify"])",
       R"("ready"|["notify", "notify"]|[1]|["started", "notify"]|"listen"|"check"|true)"},
      {"[service]\nnice", "0|-20|19", R"(20|-21|"0"|1.0)"},
      {"[service]\noom_score_adjust", "-1000|1000", "1001|-1001"},
      {"[service]\ngroups", R"(["a", "_b", "www-data", "Debian-exim"])",
       R"(["0x"]|["1000abc"]|["-1"]|[" 5"]|["4294967295"]|[""]|["a b"]|["a:b"]|"a"|["a", "a"])"},
      {"[service]\ndirectory", R"("/"|"/srv/x")",
       R"("srv"|"./x"|"/srv/"|"//srv"|"/a//b"|"/a/../b"|"/.."|"/a/."|""|"/a\u0000b"|"/a\nb")"},
      {"[service]\nenvironment", R"({ A = "1", _b = "" })",
       R"({ A = 1 }|{ "1A" = "x" }|{ "A B" = "x" }|["A=1"]|{ NOTIFY_SOCKET = "/x" }|{ LISTEN_PID = "1" })"},
      {"[service.restart]\nlimit", R"("5/60s"|"0/1m")",
       R"("5"|"5/"|"/60s"|"5/60"|"5/0s"|5|"-5/60s"|"5/60s/1")"},
      {"[service.restart]\non", R"("never"|"failure"|"always")", R"("on-failure"|"Always"|true)"},
      {"[service.restart]\nmax_delay", R"("1m"|"100ms")", R"("99ms")"},
      {"[service.stop]\nsignal", R"("SIGTERM"|"SIGINT")", R"("TERM"|15|"SIGTERM ")"},
      {"[sandbox]\ncapabilities", R"([]|["net_bind_service", "chown"])",
       R"(["CAP_CHOWN"]|["cap_chown"]|["net_bind_servce"]|["chown", "chown"]|"chown"|["cap_63"])"},
      {"[sandbox]\nsyscalls", R"(["@default", "read"])", R"(["@"]|["Read"]|["@a/b"]|["@../x"]|[""])"},
      {"[sandbox]\nnetwork", R"("host"|"none"|"private"|"netns:blue"|"netns:a.b_c-1")",
       R"("bridge"|"Host"|"netns:"|"netns:.."|"netns:a/b"|"netns:-a"|"netns:NAME"|"netns:a b"|"/run/netns/a"|1)"},
      {"[sandbox.ports]\nlisten", R"(["udp:53", "tcp:65535"])",
       R"(["53"]|["udp:0"]|["udp:65536"]|["udp:053"]|["sctp:1"]|["udp: 53"]|["udp:-1"]|["udp:53x"]|[53])"},
      {"[sandbox]\ntmp", R"("64M"|"1G"|4096|"4K")",
       R"("64MB"|"64m"|-1|"-1M"|"M"|"1"|0|"99999999999G"|"1.5G"|"64 M")"},
      {"[sandbox]\nhostname", R"("a"|"a-b.c")", R"(""|"a b"|"-a"|"a/b")"},
      {"[sandbox]\nmemory_deny_write_execute", "true|false", R"("true"|1)"},
      {"[sandbox.limits]\nprocesses", "1|64", R"(0|-1|"64")"},
      {"[sandbox.limits]\nmemory", R"("512M"|1073741824)", R"("all"|0)"},
      {"[tree]\ndevices", R"([]|["null", "net/tun"])", R"(["/dev/null"]|["../x"]|["a//b"]|[""])"},
      {"[[tree.files]]\nto = \"/x\"\nfrom = \"/y\"\nxattrs",
       R"([]|["user.a", "trusted.b", "security.capability", "system.posix_acl_access"])",
       R"("user.a"|["user."]|["user.a", "user.a"]|["system.posix_acl_default"]|["btrfs.x"]|["user.a b"]|["user.a=b"]|["user.%"]|["user.ä"]|["user.a\u0000"]|[""]|[1])"},
      {"[tree]\nlibraries", R"(["libx.so.1", "/usr/lib/y.so"])", R"(["lib/x.so"]|["../x"]|[""]|["/a/../b"])"},
      {"[tree]\ninclude", R"(["openssl"])", R"(["../x"]|["a@b"]|["A"])"},
      {"[tree]\ndirectories", R"(["/srv"])",
       R"(["/proc/x"]|["/dev"]|["/run/x"]|["/tmp/x"]|["/srv", "/srv"])"},
      {"[[config]]\nfrom", R"("/etc/x")", R"("etc/x"|"/proc/x"|"/sys"|"/dev/x"|"/"|"/tmp"|"/run/systemd"|3)"},
      {"[[volume]]\nname = \"v\"\npath = \"/v\"\nfiles", R"([]|["dhcpd.leases", ".x"])",
       R"(["/x"]|["a/b"]|[".."]|["."]|[""]|["x", "x"]|"x"|["a\u0000b"])"},
      {"[[volume]]\nname = \"v\"\npath = \"/v\"\ndirectories",
       R"([]|[{ path = "a" }, { path = "a/b", mode = "1777" }])",
       R"([{}]|["a"]|[{ path = "/a" }]|[{ path = "../a" }]|[{ path = "a//b" }]|[{ path = "" }]|"a")"},
      {"[check]\ncommand", R"(["true"]|["/bin/x", ""])", R"([]|"true"|[""]|[1])"},
  };
  const Manifests m;
  for (const Case& c : cases) {
    const std::string where = c.where;
    const std::size_t line = where.find('\n');
    const std::string table = where.substr(0, line);
    for (const std::string& value : split(c.good)) {
      CAPTURE(where, value);
      CHECK(m.problems(with(table, where.substr(line + 1) + " = " + value)) == "");
    }
    for (const std::string& value : split(c.bad)) {
      CAPTURE(where, value);
      const std::string problems = m.problems(with(table, where.substr(line + 1) + " = " + value));
      CHECK(problems.starts_with("d.toml:"));
      CHECK(std::count(problems.begin(), problems.end(), '\n') == 0);  // one mistake, one message
    }
  }
}

TEST_CASE("user names that somebody once took for numbers") {
  const Manifests m;
  for (const char* name : {"0x", "1000abc", "-1", "4294967295", "", " 5", "0"}) {
    CAPTURE(name);
    std::string text = least;
    text.replace(text.find("user = \"u\""), 10, "user = \"" + std::string(name) + "\"");
    CHECK(contains(m.problems(text), "d.toml:7:8: service.user: "));
  }
}

TEST_CASE("messages name the place, what was expected, and the nearest word") {
  const Manifests m;
  CHECK(m.problems(with("[tree]", "libary = []")) ==
        "d.toml:3:1: unknown key 'libary' in [tree]; did you mean 'libraries'?");
  CHECK(m.problems(with("[service]", "capabilities = []")) ==
        "d.toml:6:1: unknown key 'capabilities' in [service]; it belongs in [sandbox]");
  CHECK(m.problems(with("[service]", "umask = 18")) ==
        "d.toml:6:9: service.umask: expected a mode as a string of octal digits such as \"0750\", not an "
        "integer");
  CHECK(contains(m.problems(with("[sandbox]", "capabilities = [\"net_bind_servce\"]")),
                 "did you mean 'net_bind_service'?"));
  CHECK(contains(m.problems(with("[service]", "reload = \"HUP\"")), "\"restart\" or a signal's name"));
  CHECK(contains(m.problems(with("[service.stop]", "signal = \"TERM\"")), "did you mean 'SIGTERM'?"));
  CHECK(contains(m.problems(with("[service]", "nice = 1.5")),
                 "d.toml:6:8: service.nice: expected an integer, not a float"));
  CHECK(contains(m.problems(with("[service.restart]", "on = \"allways\"")), "did you mean 'always'?"));
}

TEST_CASE("every problem at once, in the order of the file") {
  const Manifests m;
  CHECK(m.problems("versio = 1\n[tree]\nbinaries = [\"x\", 3]\n[service]\nuser = 5\n[sandbx]\n") ==
        "d.toml:1:1: the top level lacks the key 'version', which has no default\n"
        "d.toml:1:1: unknown key 'versio' in the top level; did you mean 'version'?\n"
        "d.toml:2:1: [tree] lacks the key 'users', which has no default\n"
        "d.toml:3:13: tree.binaries[0]: 'x' is relative; expected an absolute path\n"
        "d.toml:3:18: tree.binaries[1]: expected an absolute path, not an integer\n"
        "d.toml:4:1: [service] lacks the key 'command', which has no default\n"
        "d.toml:5:8: service.user: expected a user or group name, not an integer\n"
        "d.toml:6:2: unknown key 'sandbx' in the top level; did you mean 'sandbox'?");
}

TEST_CASE("a syntax error has toml++'s place and words") {
  const Manifests m;
  const std::string problems = m.problems("version = 1\n[tree\n");
  CHECK(contains(problems, "d.toml:2:"));
  CHECK(contains(problems, "rror"));
  // toml++ asserts or worse on these, and on letters beyond ASCII where blanks may be.
  CHECK(contains(m.problems("version = 1\nx = \u00e9\n"), "d.toml:2:"));
  CHECK(contains(m.problems("version = 1 \u00e9\n"), "d.toml:1:"));
  CHECK(m.problems("description = \"\"\"a \\\n \u00e9\"\"\"\n" + std::string(least)).empty());
  for (const char* header : {"[=]", "[[.]]", "[ /x ]", "[{}]", "[]", "[@default]", "[\x80]"}) {
    CAPTURE(header);
    CHECK(contains(m.problems("version = 1\n " + std::string(header)),
                   "d.toml:2:2: a table's name is missing or malformed"));
  }
}

TEST_CASE("hostile files end in a clear error") {
  const Manifests m;
  CHECK(contains(m.problems(std::string(1 << 20, '#')), "larger than 262144 bytes"));
  CHECK(contains(m.problems("a = " + std::string(100000, '[')), "nest more than 16 levels deep"));
  CHECK(contains(m.problems("a" +
                            [] {
                              std::string s;
                              for (int i = 0; i < 60000; ++i) s += ".a";
                              return s;
                            }() +
                            " = 1"),
                 "nest more than 16 levels deep"));
  CHECK(contains(m.problems("[a" + std::string(100000, '.') + "]"), "nest more"));
  CHECK(contains(m.problems(with("[service]", "directory = \"/a\\u0000\"")), "NUL byte"));
  CHECK_FALSE(m.problems(std::string("version = 1\0", 12)).empty());
  CHECK_FALSE(m.problems("\xff\xfe").empty());
  std::string many = least;
  for (int i = 0; i < 20000; ++i) many += "k" + std::to_string(i) + "=1\n";
  CHECK(contains(m.problems(many), "... and 19900 more"));
  std::string items = "[sandbox]\nsyscalls = [";
  for (int i = 0; i < 60000; ++i) items += "1,";
  CHECK(contains(m.problems(least + items + "]"), "more"));
  // Dots and brackets inside of strings and comments are text.
  CHECK(m.problems("description = '" + std::string(500, '[') + "' # " + std::string(500, '.') + "\n" +
                   least) == "");
  CHECK(m.problems("description = \"\"\"\n" + std::string(500, '{') + "\"\\\"\"\"\"\n" + least) == "");
}
