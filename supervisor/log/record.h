// One log record: what a jail sent, and how it is printed. Pure: bytes in, text out, no system calls.
//
// The line in NAME.log, one a record, whatever the sender put into it:
//
//   2026-11-23T23:41:50.123456+00:00 named[1234] daemon.info named[2]: text
//   ^ our clock, local, with offset  ^ jail and  ^ facility  ^ what the sender calls itself, a claim
//                                      the kernel's pid . severity
//   2026-11-23T23:41:50.123456+00:00 named stderr: text
//
// A third field that ends in ':' has no tag behind it. Everything before the tag is ours and cannot be
// forged: control bytes and invalid UTF-8 of the sender are escaped as \xHH, also newlines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace jail::log {

inline constexpr std::size_t record_limit = 8192;  ///< bytes of a datagram or a line that are kept
/// A formatted record is never longer: every byte escaped, and the fields before and behind.
inline constexpr std::size_t line_limit = 4 * record_limit + 512;

enum class Source : std::uint8_t { syslog = 0, out = 1, err = 2 };

/// A record as it was received: `bytes` are the sender's (hostile), all else is the kernel's or ours.
struct Record {
  Source source = Source::syslog;
  std::uint64_t time_us = 0;    ///< of the receipt, microseconds since 1970 UTC
  std::int32_t pid = 0;         ///< in jaild's pid namespace; 0: unknown
  std::uint64_t truncated = 0;  ///< bytes behind `bytes` that were not kept
  std::string_view bytes;
};

/// What a syslog datagram says of itself.
struct Parsed {
  std::uint8_t facility = 1;  ///< never kern (0): that is the kernel's own
  std::uint8_t severity = 5;  ///< 0 emerg ... 7 debug
  std::string_view tag;       ///< "named[2]", "postfix/smtpd[7]", "dovecot"; may be empty
  std::string_view text;
};

/// Reads `<PRI>`, an RFC 3164, ISO or RFC 5424 header and the tag, all optional; final NULs and newlines are
/// cut off. Anything can be given: what is not understood stays text. Without a valid priority it is
/// user.notice (RFC 3164, 4.3.3).
[[nodiscard]] Parsed parse_syslog(std::string_view datagram);

/// The severity of a record: the datagram's own; stdout is info, stderr notice.
[[nodiscard]] std::uint8_t severity_of(const Record& record);

/// Appends the line of `record`, newline included.
void append_line(std::string& out, std::string_view jail, const Record& record);

/// Appends the datagram for the host's syslog: `<PRI>Mmm dd hh:mm:ss jail/NAME[PID]: tag: text`.
void append_datagram(std::string& out, std::string_view jail, const Record& record);

/// Appends the line (or datagram) that tells of `count` records that were dropped because of `cause`.
void append_drop_line(std::string& out, std::string_view jail, std::uint64_t time_us, std::uint64_t count,
                      std::string_view cause);
void append_drop_datagram(std::string& out, std::string_view jail, std::uint64_t time_us, std::uint64_t count,
                          std::string_view cause);

}  // namespace jail::log
