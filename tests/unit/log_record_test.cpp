#include <cstdlib>
#include <ctime>

#include "catch.h"
#include "supervisor/log/record.h"

using namespace jail::log;

namespace {

constexpr std::uint64_t when = 1795477310123456ULL;  // 2026-11-23T23:41:50.123456 UTC

std::string line(std::string_view bytes, std::int32_t pid = 1234, Source source = Source::syslog,
                 std::uint64_t cut = 0) {
  std::string out;
  append_line(out, "named", Record{source, when, pid, cut, bytes});
  return out;
}

std::string datagram(std::string_view bytes, std::int32_t pid = 1234, Source source = Source::syslog) {
  std::string out;
  append_datagram(out, "named", Record{source, when, pid, 0, bytes});
  return out;
}

const std::string stamp = "2026-11-23T23:41:50.123456+00:00 ";

}  // namespace

TEST_CASE("syslog headers are stripped leniently") {
  struct Case {
    std::string_view in;
    unsigned facility, severity;
    std::string_view tag, text;
  };
  using namespace std::string_view_literals;
  const Case cases[] = {
      {"<30>Nov 23 23:41:50 named[2]: running"sv, 3, 6, "named[2]", "running"},
      {"<22>Nov  3 23:41:50 postfix/smtpd[7]: connect"sv, 2, 6, "postfix/smtpd[7]", "connect"},
      {"<30>dovecot: imap-login: x"sv, 3, 6, "dovecot", "imap-login: x"},
      {"<39>saslpasswd2: no\n\0\n"sv, 4, 7, "saslpasswd2", "no"},
      {"<13>no tag here"sv, 1, 5, "", "no tag here"},
      {"nothing at all"sv, 1, 5, "", "nothing at all"},
      {"<0>kernel: fake"sv, 1, 0, "kernel", "fake"},  // kern is the kernel's own
      {"<192>x: y"sv, 1, 5, "", "<192>x: y"},
      {"<>x"sv, 1, 5, "", "<>x"},
      {"<1234>x"sv, 1, 5, "", "<1234>x"},
      {"<13"sv, 1, 5, "", "<13"},
      {"<13>"sv, 1, 5, "", ""},
      {""sv, 1, 5, "", ""},
      {"<165>1 2003-10-11T22:14:15.003Z host evntslog - ID47 - text"sv, 20, 5, "evntslog", "text"},
      {"<165>1 - - - - - [a b=\"c\"] text"sv, 20, 5, "", "[a b=\"c\"] text"},
      {"<30>2026-11-23T23:41:50.1+01:00 named: iso"sv, 3, 6, "named", "iso"},
      {"<30>named[x]: y"sv, 3, 6, "", "named[x]: y"},
      {"<30>named[]: y"sv, 3, 6, "", "named[]: y"},
      {"<30>a b: y"sv, 3, 6, "", "a b: y"},
  };
  for (const Case& c : cases) {
    INFO(c.in);
    const Parsed parsed = parse_syslog(c.in);
    CHECK(unsigned{parsed.facility} == c.facility);
    CHECK(unsigned{parsed.severity} == c.severity);
    CHECK(parsed.tag == c.tag);
    CHECK(parsed.text == c.text);
  }
}

TEST_CASE("a record is one line whose front cannot be forged") {
  CHECK(line("<30>Nov 23 23:41:50 named[2]: text") == stamp + "named[1234] daemon.info named[2]: text\n");
  CHECK(line("<13>no tag") == stamp + "named[1234] user.notice: no tag\n");
  CHECK(line("<13>x", 0) == stamp + "named user.notice: x\n");
  CHECK(line("hello", 0, Source::out) == stamp + "named stdout: hello\n");
  CHECK(line("hello", 0, Source::err, 12) == stamp + "named stderr: hello [truncated 12]\n");
  using namespace std::string_view_literals;
  CHECK(line("<13>a\n<0>kernel: fake\x1b[2J\0b\xff"sv) ==
        stamp + "named[1234] user.notice: a\\x0a<0>kernel: fake\\x1b[2J\\x00b\\xff\n");
  CHECK(line("<13>\xc2\x9b"
             "31m \xc3\xa4") == stamp + "named[1234] user.notice: \\xc2\\x9b31m \xc3\xa4\n");
}

TEST_CASE("the host's syslog gets our stamp, the jail's name and the kernel's pid") {
  CHECK(datagram("<30>Jan  1 00:00:00 named[2]: text") ==
        "<30>Nov 23 23:41:50 jail/named[1234]: named[2]: text");
  CHECK(datagram("<0>kernel: x") == "<8>Nov 23 23:41:50 jail/named[1234]: kernel: x");
  CHECK(datagram("out", 0, Source::out) == "<30>Nov 23 23:41:50 jail/named: out");
  CHECK(datagram("err", 0, Source::err) == "<29>Nov 23 23:41:50 jail/named: err");
}

TEST_CASE("no record is longer than the limit says") {
  const std::string worst(record_limit, '\x01');
  std::string out;
  append_line(out, std::string(64, 'n'), Record{Source::syslog, when, 4194304, ~0ULL, worst});
  CHECK(out.size() <= line_limit);
  out.clear();
  append_datagram(out, std::string(64, 'n'), Record{Source::err, when, 4194304, ~0ULL, worst});
  CHECK(out.size() <= line_limit);
}

TEST_CASE("drops are told") {
  std::string out;
  append_drop_line(out, "named", when, 1, "why");
  CHECK(out == stamp + "named syslog.warning jail-relay: dropped 1 message (why)\n");
  out.clear();
  append_drop_datagram(out, "named", when, 7, "why");
  CHECK(out == "<44>Nov 23 23:41:50 jail/named: jail-relay: dropped 7 messages (why)");
}
