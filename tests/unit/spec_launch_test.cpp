#include <nlohmann/json.hpp>

#include "catch.h"
#include "supervisor/spec/launch_spec.h"

using namespace jail;

namespace {

LaunchSpec example() {
  LaunchSpec spec;
  spec.name = "named";
  spec.argv = {"/usr/sbin/named", "-f"};
  spec.env = {"PATH=/usr/bin"};
  spec.credentials = {103, 104, {104, 110}, std::uint64_t{1} << 10U, 0027};
  spec.mounts.push_back({Mount::Kind::tmpfs, "", "/tmp", true, false, 1U << 20U, 01777, 0, 0, false});
  spec.mounts.push_back({Mount::Kind::bind, "/etc/bind", "/etc/bind", false, false, 0, 0, 0, 0, true});
  spec.listen_ports = {{Port::Protocol::udp, 53}, {Port::Protocol::tcp, 53}};
  spec.connect_ports = {{Port::Protocol::tcp, 853}};
  spec.restrict_ports = true;
  spec.check_config = {"/usr/bin/named-checkconf", "-z"};
  spec.sockets = {{"dns", "udp:[::1]:53", 128, 0600, 0, 0}, {"dns", "unix:/run/x/dns", 1, 0660, 7, 8}};
  spec.check = Check{{"dig", "@127.0.0.1"}, "127.0.0.1", milliseconds(2000), milliseconds(0)};
  spec.reload = {Reload::How::signal, 1};
  spec.rlimits = {{"nofile", 1024, 4096}, {"core", 0, 1, true}};
  spec.devices = {{"null"}};
  spec.oom_score_adjust = -5;
  spec.provides = {"dns"};
  return spec;
}

std::string problem_with(const std::string& text) {
  auto read = launch_spec_from_json(text, "launch.json");
  REQUIRE_FALSE(read);
  CHECK(read.error().exit == Exit::config);
  return read.error().message;
}

}  // namespace

TEST_CASE("a launch spec survives its JSON form, byte for byte") {
  const LaunchSpec spec = example();
  const std::string text = to_json(spec);
  auto read = launch_spec_from_json(text, "launch.json");
  REQUIRE(read);
  CHECK(*read == spec);
  CHECK(to_json(*read) == text);
  CHECK(text.find("\"net_bind_service\"") != std::string::npos);
  CHECK(text.back() == '\n');
}

TEST_CASE("a named network has a name, and no other has one") {
  LaunchSpec spec = example();
  spec.network = LaunchSpec::Network::named;
  spec.network_name = "blue";
  const std::string text = to_json(spec);
  CHECK(text.find("\"network\": \"netns\"") != std::string::npos);
  const auto read = launch_spec_from_json(text, "launch.json");
  REQUIRE(read);
  CHECK(*read == spec);
  for (const char* name : {"", ".", "..", "a/b", "../x", "-a", " a", "a\nb", "ä"}) {
    CAPTURE(name);
    CHECK_FALSE(valid_network_name(name));
    spec.network_name = name;
    CHECK_THAT(problem_with(to_json(spec)), Catch::Matchers::Contains("'network_name'"));
  }
  CHECK_FALSE(valid_network_name(std::string(65, 'a')));
  spec.network = LaunchSpec::Network::host;
  spec.network_name = "blue";
  CHECK_THAT(problem_with(to_json(spec)), Catch::Matchers::Contains("'network_name'"));
}

TEST_CASE("a launch spec that is not ours is refused with the key's path") {
  auto edited = [](auto edit) {
    auto json = nlohmann::json::parse(to_json(example()));
    edit(json);
    return problem_with(json.dump());
  };
  CHECK_THAT(problem_with("{"), Catch::Matchers::Contains("not valid JSON"));
  CHECK_THAT(problem_with("[]"), Catch::Matchers::Contains("not a JSON object"));
  CHECK_THAT(edited([](auto& j) { j["version"] = 2; }), Catch::Matchers::Contains("version 1"));
  CHECK_THAT(edited([](auto& j) { j["surprise"] = 1; }),
             Catch::Matchers::Contains("'surprise' is not a known key"));
  CHECK_THAT(edited([](auto& j) { j.erase("stop"); }), Catch::Matchers::Contains("'stop' is missing"));
  CHECK_THAT(edited([](auto& j) { j["credentials"]["uid"] = -1; }),
             Catch::Matchers::Contains("'credentials.uid'"));
  CHECK_THAT(edited([](auto& j) { j["credentials"]["uid"] = 4294967296LL; }),
             Catch::Matchers::Contains("'credentials.uid'"));
  CHECK_THAT(edited([](auto& j) { j["credentials"]["capabilities"] = {"root"}; }),
             Catch::Matchers::Contains("unknown capability"));
  CHECK_THAT(edited([](auto& j) { j["mounts"][0]["kind"] = "nfs"; }),
             Catch::Matchers::Contains("'mounts[0].kind'"));
  CHECK_THAT(edited([](auto& j) { j["listen_ports"][0]["number"] = 65536; }),
             Catch::Matchers::Contains("'listen_ports[0].number'"));
  CHECK_THAT(edited([](auto& j) { j["stop"]["signal"] = "SIGNOPE"; }),
             Catch::Matchers::Contains("'stop.signal'"));
  CHECK_THAT(edited([](auto& j) { j["stop"]["timeout_ms"] = -1; }),
             Catch::Matchers::Contains("'stop.timeout_ms'"));
  CHECK_THAT(edited([](auto& j) { j["sockets"][1]["listen"] = "unix:run/x"; }),
             Catch::Matchers::Contains("'sockets': 'unix:run/x' has no absolute path"));
  CHECK_THAT(edited([](auto& j) { j["sockets"][0].erase("backlog"); }),
             Catch::Matchers::Contains("'sockets[0].backlog' is missing"));
  CHECK_THAT(edited([](auto& j) { j["provides"] = {"../dns"}; }),
             Catch::Matchers::Contains("'provides': '../dns' is not a name"));
  CHECK_THAT(edited([](auto& j) { j["argv"] = nlohmann::json::array(); }),
             Catch::Matchers::Contains("absolute"));
  CHECK_THAT(edited([](auto& j) { j["cwd"] = std::string("/\0x", 3); }), Catch::Matchers::Contains("NUL"));
}

TEST_CASE("names of capabilities and signals") {
  CHECK(capability_number("net_bind_service") == 10U);
  CHECK_FALSE(capability_number("CAP_CHOWN"));
  CHECK(capability_name(40) == "checkpoint_restore");
  CHECK(capability_names(0x401) == std::vector<std::string>{"chown", "net_bind_service"});
  CHECK(signal_number("SIGTERM") == 15);
  CHECK_FALSE(signal_number("TERM"));
  CHECK(signal_name(1) == "SIGHUP");
}
