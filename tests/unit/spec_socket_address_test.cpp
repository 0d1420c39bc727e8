// Addresses of passed sockets: what is read, how it is written again, which cannot stand beside each other.
#include "catch.h"
#include "supervisor/spec/socket_address.h"

using namespace jail;

TEST_CASE("addresses are read into what is bound, and have one spelling") {
  struct Case {
    const char* text;
    const char* spelled;
  };
  static const Case cases[] = {
      {"tcp:993", "tcp:993"},
      {"udp:65535", "udp:65535"},
      {"tcp:0.0.0.0:993", "tcp:0.0.0.0:993"},
      {"udp:192.0.2.1:53", "udp:192.0.2.1:53"},
      {"tcp:[::]:993", "tcp:[::]:993"},
      {"tcp:[2001:0DB8:0:0::1]:25", "tcp:[2001:db8::1]:25"},
      {"unix:/run/x/a b:c", "unix:/run/x/a b:c"},
      {"unix-dgram:/run/log", "unix-dgram:/run/log"},
      {"unix-seqpacket:/x", "unix-seqpacket:/x"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.text);
    const auto address = parse_socket_address(c.text);
    INFO((address ? std::string() : address.error().message));
    REQUIRE(address);
    CHECK(to_text(*address) == c.spelled);
    CHECK(*parse_socket_address(to_text(*address)) == *address);
  }
  CHECK(parse_socket_address("tcp:993")->family == SocketAddress::Family::any);
  CHECK(parse_socket_address("tcp:[::]:993")->family == SocketAddress::Family::ipv6);
  CHECK(parse_socket_address("unix-dgram:/x")->local());
  CHECK_FALSE(parse_socket_address("unix-dgram:/x")->connected());
  CHECK(parse_socket_address("unix-seqpacket:/x")->connected());
}

TEST_CASE("what is no address is refused, with the reason") {
  struct Case {
    std::string text;
    const char* reason;
  };
  const std::string nul("tcp:127.0.0.1\0:80", 17);
  const Case cases[] = {
      {"", "is no address to listen on"},
      {"993", "is no address to listen on"},
      {"TCP:993", "is no address to listen on"},
      {"sctp:993", "is no address to listen on"},
      {"tcp:", "has no port"},
      {"tcp:0", "has no port"},
      {"tcp:065", "has no port"},
      {"tcp:65536", "has no port"},
      {"tcp:-1", "has no port"},
      {"tcp: 1", "has no port"},
      {"tcp:1.2.3.4:", "has no port"},
      {"tcp:imaps", "has no port"},
      {"tcp:localhost:993", "has no numeric address"},
      {"tcp::993", "has no numeric address"},
      {"tcp:*:993", "has no numeric address"},
      {"tcp:1.2.3:993", "has no numeric address"},
      {"tcp:::1:993", "has no numeric address"},
      {"tcp:[::1:993", "has no numeric address"},
      {"tcp:[]:993", "has no numeric address"},
      {"tcp:[fe80::1%eth0]:993", "has no numeric address"},
      {"unix:", "has no absolute path"},
      {"unix:@abstract", "has no absolute path"},
      {"unix:run/x", "has no absolute path"},
      {"unix:/", "has no absolute path"},
      {"unix:/run/../etc/x", "holds '/../'"},
      {"unix:/run//x", "holds '//'"},
      {"unix:/run/x/..", "holds '/../'"},
      {"unix:/run/\nx", "holds a control character"},
      {"unix:/" + std::string(107, 'x'), "has a path of more than 107 bytes"},
      {nul, "has no numeric address"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.text);
    const auto address = parse_socket_address(c.text);
    REQUIRE_FALSE(address);
    CHECK_THAT(address.error().message, Catch::Matchers::Contains(c.reason));
    CHECK(address.error().exit == Exit::manifest);
  }
}

TEST_CASE("two that the kernel would not bind side by side") {
  struct Case {
    const char* a;
    const char* b;
    bool clash;
  };
  static const Case cases[] = {
      {"tcp:993", "tcp:993", true},
      {"tcp:993", "tcp:192.0.2.1:993", true},
      {"tcp:993", "tcp:[::]:993", true},
      {"tcp:0.0.0.0:993", "tcp:192.0.2.1:993", true},
      {"tcp:[::]:993", "tcp:[::1]:993", true},
      {"tcp:0.0.0.0:993", "tcp:[::]:993", false},
      {"tcp:993", "udp:993", false},
      {"tcp:993", "tcp:995", false},
      {"tcp:192.0.2.1:993", "tcp:192.0.2.2:993", false},
      {"unix:/a", "unix-dgram:/a", true},
      {"unix:/a", "unix:/b", false},
      {"unix:/a", "tcp:993", false},
  };
  for (const Case& c : cases) {
    CAPTURE(c.a, c.b);
    CHECK(overlap(*parse_socket_address(c.a), *parse_socket_address(c.b)) == c.clash);
    CHECK(overlap(*parse_socket_address(c.b), *parse_socket_address(c.a)) == c.clash);
  }
}
