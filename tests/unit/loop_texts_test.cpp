// What the loop reads in /proc: listening ports, and where our cgroup is.
#include "catch.h"
#include "supervisor/loop/cgroups.h"
#include "supervisor/loop/listeners.h"

namespace {

using namespace jail;
using namespace jail::loop;
using Protocol = Port::Protocol;

const std::string heading =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

std::string row(const std::string& local, const std::string& state, const std::string& inode = "4711") {
  return "   0: " + local + " 00000000:0000 " + state +
         " 00000000:00000000 00:00000000 00000000   103        0 " + inode +
         " 1 0000000000000000 100 0 0 10 0\n";
}

const std::string mountinfo =
    "22 28 0:20 / /proc rw,nosuid shared:12 - proc proc rw\n"
    "30 28 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

std::string place(const std::string& mounts, const std::string& cgroup) {
  const auto found = find_cgroup_place(mounts, cgroup);
  return found ? found->mount + " " + found->own : "none";
}

}  // namespace

TEST_CASE("A listening port is one whose state says so") {
  const std::string text = heading + row("0100007F:0035", "0A", "31") + row("0100007F:0036", "01") +
                           row("00000000:FFFF", "0A", "18446744073709551615") +
                           row("00000000000000000000000001000000:03E1", "0A", "33");
  const auto tcp = parse_proc_net(text, Protocol::tcp);
  REQUIRE(tcp.size() == 3);
  CHECK(tcp[0].port == Port{Protocol::tcp, 53});
  CHECK(tcp[0].inode == 31);
  CHECK(tcp[0].cgroup == 0);
  CHECK(tcp[1].port == Port{Protocol::tcp, 65535});
  CHECK(tcp[1].inode == 18446744073709551615U);
  CHECK(tcp[2].port == Port{Protocol::tcp, 993});
  CHECK(parse_proc_net(text, Protocol::udp).empty());
  CHECK(parse_proc_net(heading + row("00000000:0035", "07"), Protocol::udp).at(0).port ==
        Port{Protocol::udp, 53});
}

TEST_CASE("A row that is no row is passed over") {
  CHECK(parse_proc_net("", Protocol::tcp).empty());
  CHECK(parse_proc_net(heading, Protocol::tcp).empty());
  CHECK(parse_proc_net(row("00000000:0035", "0A"), Protocol::tcp).empty());  // taken for the heading
  for (const std::string& bad :
       {std::string("\n"), std::string("0:\n"), row("000000000035", "0A"), row("00000000:", "0A"),
        row("00000000:0000", "0A"), row("00000000:10000", "0A"), row("00000000:FFFFFFFFF", "0A"),
        row("00000000:XYZ", "0A"), row("00000000:0035", "ZZ"), row("00000000:0035", "0A", "x"),
        row("00000000:0035", "0A", "18446744073709551616"), std::string(100'000, 'x') + "\n",
        std::string(1000, '\0') + "\n"}) {
    INFO(bad.substr(0, 80));
    const auto found = parse_proc_net(heading + bad + row("00000000:0050", "0A"), Protocol::tcp);
    REQUIRE(found.size() == 1);
    CHECK(found[0].port.number == 80);
  }
}

TEST_CASE("A text cut anywhere gives no port that is not in it") {
  const std::string text = heading + row("00000000:0035", "0A") + row("00000000:0050", "0A");
  for (std::size_t size = 0; size < text.size(); ++size)
    for (const Listener& listener : parse_proc_net(text.substr(0, size), Protocol::tcp))
      REQUIRE((listener.port.number == 53 || listener.port.number == 80));
}

TEST_CASE("Our cgroup is found below the mount that shows it") {
  CHECK(place(mountinfo, "0::/\n") == "/sys/fs/cgroup /sys/fs/cgroup");
  CHECK(place(mountinfo, "0::/system.slice/jaild.service\n") ==
        "/sys/fs/cgroup /sys/fs/cgroup/system.slice/jaild.service");
  CHECK(place(mountinfo, "12:pids:/x\n1:name=systemd:/y\n0::/z\n") == "/sys/fs/cgroup /sys/fs/cgroup/z");
  // Mounted in part, as containers have it, and beside the controllers of v1.
  const std::string part = "40 28 0:26 /lxc/a /sys/fs/cgroup/unified rw - cgroup2 none rw\n";
  CHECK(place(part, "0::/lxc/a/b\n") == "/sys/fs/cgroup/unified /sys/fs/cgroup/unified/b");
  CHECK(place(part, "0::/lxc/a\n") == "/sys/fs/cgroup/unified /sys/fs/cgroup/unified");
  // Several mounts: the first that shows us.
  CHECK(place("40 28 0:26 /other /a rw - cgroup2 none rw\n" + mountinfo, "0::/z\n") ==
        "/sys/fs/cgroup /sys/fs/cgroup/z");
  CHECK(place("30 28 0:26 / /odd\\040name\\134 rw - cgroup2 none rw\n", "0::/z\n") ==
        "/odd name\\ /odd name\\/z");
}

TEST_CASE("Where our cgroup does not show there is none") {
  CHECK(place("", "0::/\n") == "none");
  CHECK(place(mountinfo, "") == "none");
  CHECK(place(mountinfo, "12:pids:/x\n") == "none");
  CHECK(place(mountinfo, "0::/../../outside\n") == "none");  // of a parent cgroup namespace
  CHECK(place("30 28 0:26 / /sys/fs/cgroup rw - cgroup cgroup rw\n", "0::/\n") == "none");
  CHECK(place("40 28 0:26 /lxc/a /m rw - cgroup2 none rw\n", "0::/lxc/ab\n") == "none");
  for (const char* torn :
       {"30", "30 28 0:26", "- cgroup2 ", " - cgroup2 ", "\n - cgroup2 \n", "30 28 0:26 \\04"})
    CHECK(place(torn, "0::/z\n") == "none");
}

TEST_CASE("Ports are told as people write them") {
  CHECK(describe({}).empty());
  CHECK(describe({{Protocol::udp, 53}, {Protocol::tcp, 65535}}) == "udp:53, tcp:65535");
}
