#include "supervisor/log/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <iterator>

#include "supervisor/base/quote.h"

namespace jail::log {
namespace {

// RFC 5424, 6.2.1, by the names of syslog.conf(5).
constexpr std::array<const char*, 24> facilities = {
    "kern",   "user",   "mail",     "daemon", "auth",   "syslog", "lpr",    "news",
    "uucp",   "cron",   "authpriv", "ftp",    "ntp",    "audit",  "alert",  "clock",
    "local0", "local1", "local2",   "local3", "local4", "local5", "local6", "local7"};
constexpr std::array<const char*, 8> severities = {"emerg",   "alert",  "crit", "err",
                                                   "warning", "notice", "info", "debug"};
constexpr std::array<const char*, 12> months = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
constexpr unsigned user_facility = 1, daemon_facility = 3, syslog_facility = 5;
constexpr unsigned notice = 5, info = 6, warning = 4;
constexpr std::size_t tag_limit = 64;

bool digit(char c) {
  return c >= '0' && c <= '9';
}

// Takes "<PRI>" off; nothing is taken when it is not one.
bool take_priority(std::string_view& rest, Parsed& parsed) {
  std::size_t at = 1;
  unsigned value = 0;
  if (rest.empty() || rest[0] != '<') return false;
  for (; at < rest.size() && at < 4 && digit(rest[at]); ++at)
    value = value * 10 + static_cast<unsigned>(rest[at] - '0');
  if (at == 1 || at >= rest.size() || rest[at] != '>' || value > 191) return false;
  parsed.facility = static_cast<std::uint8_t>(value / 8 == 0 ? user_facility : value / 8);
  parsed.severity = static_cast<std::uint8_t>(value % 8);
  rest.remove_prefix(at + 1);
  return true;
}

// Whether `text` begins as `pattern` says: 0 a digit, _ a space or digit, a a letter, else the byte itself.
bool matches(std::string_view text, std::string_view pattern) {
  if (text.size() < pattern.size()) return false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = text[i];
    const char lower = static_cast<char>(c | 0x20);
    const bool good = pattern[i] == '0'   ? digit(c)
                      : pattern[i] == '_' ? digit(c) || c == ' '
                      : pattern[i] == 'a' ? lower >= 'a' && lower <= 'z'
                                          : c == pattern[i];
    if (!good) return false;
  }
  return true;
}

// The next word and the space behind it.
std::string_view take_word(std::string_view& rest) {
  const std::size_t end = std::min(rest.find(' '), rest.size());
  const std::string_view word = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return word;
}

void strip_timestamp(std::string_view& rest) {
  if (matches(rest, "aaa _0 00:00:00 ")) {
    rest.remove_prefix(16);
  } else if (matches(rest, "0000-00-00T00:00:00")) {
    take_word(rest);
  }
}

// "1 TIMESTAMP HOST APP PROCID MSGID SD MSG": APP and PROCID become the tag only where they stand together.
bool take_rfc5424(std::string_view& rest, Parsed& parsed) {
  if (!matches(rest, "1 0000-00-00T00:00:00") && !matches(rest, "1 - ")) return false;
  std::string_view at = rest.substr(2);
  take_word(at);  // timestamp
  take_word(at);  // host
  parsed.tag = take_word(at).substr(0, tag_limit);
  if (parsed.tag == "-") parsed.tag = {};
  take_word(at);  // process id: a claim of no use
  take_word(at);  // message id
  if (at.starts_with("- ")) at.remove_prefix(2);
  if (at == "-") at = {};
  if (at.starts_with("\xEF\xBB\xBF")) at.remove_prefix(3);
  rest = at;
  return true;
}

bool tag_byte(char c) {
  const char lower = static_cast<char>(c | 0x20);
  return digit(c) || (lower >= 'a' && lower <= 'z') ||
         std::string_view("_./-@+%").find(c) != std::string_view::npos;
}

// "tag:", "tag[123]:"; nothing is taken when there is none.
void take_tag(std::string_view& rest, Parsed& parsed) {
  std::size_t at = 0;
  while (at < rest.size() && at < tag_limit && tag_byte(rest[at])) ++at;
  if (at == 0) return;
  if (at < rest.size() && rest[at] == '[') {
    std::size_t close = at + 1;
    while (close < rest.size() && close < at + 12 && digit(rest[close])) ++close;
    if (close >= rest.size() || rest[close] != ']' || close == at + 1) return;
    at = close + 1;
  }
  if (at >= rest.size() || rest[at] != ':') return;
  parsed.tag = rest.substr(0, at);
  rest.remove_prefix(at + 1);
  if (rest.starts_with(' ')) rest.remove_prefix(1);
}

std::string_view trimmed(std::string_view bytes) {
  while (!bytes.empty() && (bytes.back() == '\0' || bytes.back() == '\n')) bytes.remove_suffix(1);
  return bytes;
}

// escape(), without its string where there is nothing to escape: nearly always.
void append_escaped(std::string& out, std::string_view bytes) {
  const bool plain = std::all_of(bytes.begin(), bytes.end(), [](char c) { return c >= 0x20 && c < 0x7F; });
  if (plain) {
    out.append(bytes);
  } else {
    out += escape(bytes);
  }
}

// Calendar time of the second `seconds`. Records come in bursts: most ask for the second before.
const std::tm& calendar(std::time_t seconds) {
  thread_local std::time_t last = -1;
  thread_local std::tm tm{};
  if (seconds != last) {
    ::localtime_r(&seconds, &tm);
    last = seconds;
  }
  return tm;
}

void append_two(std::string& out, int value) {
  out += static_cast<char>('0' + value / 10 % 10);
  out += static_cast<char>('0' + value % 10);
}

void append_clock(std::string& out, const std::tm& tm) {
  append_two(out, tm.tm_hour);
  out += ':';
  append_two(out, tm.tm_min);
  out += ':';
  append_two(out, tm.tm_sec);
}

void append_iso(std::string& out, std::uint64_t time_us) {
  const std::tm& tm = calendar(static_cast<std::time_t>(time_us / 1'000'000));
  fmt::format_to(std::back_inserter(out), "{:04}-", tm.tm_year + 1900);
  append_two(out, tm.tm_mon + 1);
  out += '-';
  append_two(out, tm.tm_mday);
  out += 'T';
  append_clock(out, tm);
  const long minutes = tm.tm_gmtoff / 60;
  fmt::format_to(std::back_inserter(out), ".{:06}{}", time_us % 1'000'000, minutes < 0 ? '-' : '+');
  append_two(out, static_cast<int>(std::abs(minutes) / 60));
  out += ':';
  append_two(out, static_cast<int>(std::abs(minutes) % 60));
}

void append_stamp(std::string& out, std::uint64_t time_us) {
  const std::tm& tm = calendar(static_cast<std::time_t>(time_us / 1'000'000));
  out += months.at(static_cast<std::size_t>(std::clamp(tm.tm_mon, 0, 11)));
  out += ' ';
  if (tm.tm_mday < 10) out += ' ';
  out += fmt::format_int(tm.tm_mday).c_str();
  out += ' ';
  append_clock(out, tm);
}

void append_owner(std::string& out, std::string_view jail, std::int32_t pid) {
  out += jail;
  if (pid <= 0) return;
  out += '[';
  out += fmt::format_int(pid).c_str();
  out += ']';
}

void append_cut(std::string& out, std::uint64_t truncated) {
  if (truncated != 0) fmt::format_to(std::back_inserter(out), " [truncated {}]", truncated);
}

void append_tagged(std::string& out, const Parsed& parsed, std::uint64_t truncated) {
  if (!parsed.tag.empty()) {
    append_escaped(out, parsed.tag);
    out += ": ";
  }
  append_escaped(out, parsed.text);
  append_cut(out, truncated);
}

Parsed parse(const Record& record) {
  if (record.source == Source::syslog) return parse_syslog(record.bytes);
  Parsed parsed;
  parsed.facility = daemon_facility;
  parsed.severity = record.source == Source::out ? info : notice;
  parsed.text = trimmed(record.bytes);
  return parsed;
}

std::string drop_text(std::uint64_t count, std::string_view cause) {
  return fmt::format("dropped {} {} ({})", count, count == 1 ? "message" : "messages", cause);
}

}  // namespace

Parsed parse_syslog(std::string_view datagram) {
  Parsed parsed;
  std::string_view rest = trimmed(datagram);
  if (take_priority(rest, parsed) && take_rfc5424(rest, parsed)) {
    parsed.text = rest;
    return parsed;
  }
  strip_timestamp(rest);
  take_tag(rest, parsed);
  parsed.text = rest;
  return parsed;
}

std::uint8_t severity_of(const Record& record) {
  Parsed parsed;
  std::string_view rest = record.bytes;
  if (record.source != Source::syslog) return record.source == Source::out ? info : notice;
  (void)take_priority(rest, parsed);
  return parsed.severity;
}

void append_line(std::string& out, std::string_view jail, const Record& record) {
  append_iso(out, record.time_us);
  out += ' ';
  append_owner(out, jail, record.pid);
  if (record.source == Source::syslog) {
    const Parsed parsed = parse_syslog(record.bytes);
    out += ' ';
    out += facilities.at(parsed.facility);
    out += '.';
    out += severities.at(parsed.severity);
    out += parsed.tag.empty() ? ": " : " ";
    append_tagged(out, parsed, record.truncated);
  } else {
    out += record.source == Source::out ? " stdout: " : " stderr: ";
    append_escaped(out, trimmed(record.bytes));
    append_cut(out, record.truncated);
  }
  out += '\n';
}

void append_datagram(std::string& out, std::string_view jail, const Record& record) {
  const Parsed parsed = parse(record);
  fmt::format_to(std::back_inserter(out), "<{}>", unsigned{parsed.facility} * 8 + parsed.severity);
  append_stamp(out, record.time_us);
  out += " jail/";
  append_owner(out, jail, record.pid);
  out += ": ";
  append_tagged(out, parsed, record.truncated);
}

void append_drop_line(std::string& out, std::string_view jail, std::uint64_t time_us, std::uint64_t count,
                      std::string_view cause) {
  append_iso(out, time_us);
  fmt::format_to(std::back_inserter(out), " {} syslog.warning jail-relay: {}\n", jail,
                 drop_text(count, cause));
}

void append_drop_datagram(std::string& out, std::string_view jail, std::uint64_t time_us, std::uint64_t count,
                          std::string_view cause) {
  fmt::format_to(std::back_inserter(out), "<{}>", syslog_facility * 8 + warning);
  append_stamp(out, time_us);
  fmt::format_to(std::back_inserter(out), " jail/{}: jail-relay: {}", jail, drop_text(count, cause));
}

}  // namespace jail::log
