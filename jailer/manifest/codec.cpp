#include "jailer/manifest/codec.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <optional>

#include "jailer/manifest/attribute_name.h"
#include "jailer/manifest/suggest.h"
#include "supervisor/base/quote.h"
#include "supervisor/spec/instance.h"
#include "supervisor/spec/launch_spec.h"
#include "supervisor/spec/socket_address.h"

namespace jail::manifest {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
// But for NUL, which the reader of the file names in any string.
bool is_control(char c) {
  return (static_cast<unsigned char>(c) < 0x20U && c != 0) || c == 0x7f;
}

// Digits alone: no sign, no blanks, nothing behind.
template <class Number>
std::optional<Number> to_number(std::string_view text, int base = 10) {
  Number number{};
  if (text.empty() || !std::all_of(text.begin(), text.end(), is_digit)) return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// "30s" -> 30 and "s".
std::pair<std::string_view, std::string_view> split_unit(std::string_view text) {
  const auto end = std::find_if_not(text.begin(), text.end(), is_digit);
  const auto digits = static_cast<std::size_t>(end - text.begin());
  return {text.substr(0, digits), text.substr(digits)};
}

std::string is_not(std::string_view text, std::string_view expected) {
  return fmt::format("{} is not {}", quote(text, 64), expected);
}

std::string one_of(std::string_view text, std::string_view expected, const std::vector<std::string>& words,
                   std::string& out) {
  if (std::find(words.begin(), words.end(), text) == words.end())
    return fmt::format("expected {}, not {}{}", expected, quote(text, 64), did_you_mean(text, words));
  out = text;
  return {};
}

std::vector<std::string> all_capabilities() {
  std::vector<std::string> names = capability_names(~0ULL);
  std::erase_if(names, [](const std::string& name) { return !capability_number(name); });
  return names;
}

std::vector<std::string> all_signals() {
  std::vector<std::string> names;
  for (int number = 1; number < 32; ++number)
    if (std::string name = signal_name(number); signal_number(name) == number)
      names.push_back(std::move(name));
  return names;
}

// Why a path below some root, given without its leading slash, is none.
std::string component_problem(std::string_view path) {
  if (path.size() > 4094) return "is longer than 4095 bytes";
  if (std::any_of(path.begin(), path.end(), is_control)) return "holds a control character";
  for (std::size_t at = 0; at <= path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string_view part = path.substr(at, end - at);
    at = end + 1;
    if (part.empty()) return end == path.size() ? "ends in a slash" : "holds '//'";
    if (part == "." || part == "..") return "holds '" + std::string(part) + "': write the path without it";
    if (part.size() > 255) return "has a component of more than 255 bytes";
  }
  return {};
}

}  // namespace

std::string path_problem(std::string_view path) {
  if (path.empty()) return "is empty; expected an absolute path";
  if (path.front() != '/') return "is relative; expected an absolute path";
  return path == "/" ? std::string() : component_problem(path.substr(1));
}

std::string Text::read(std::string_view text, std::string& out) {
  out = text;
  return {};
}

std::string AbsolutePath::read(std::string_view text, std::string& out) {
  if (std::string wrong = path_problem(text); !wrong.empty()) return quote(text, 128) + " " + wrong;
  out = text;
  return {};
}

std::string RelativePath::read(std::string_view text, std::string& out) {
  if (text.starts_with('/')) return quote(text, 128) + " is absolute; write it relative to the volume";
  if (text.empty()) return "is empty; expected " + std::string(expected);
  if (std::string wrong = component_problem(text); !wrong.empty()) return quote(text, 128) + " " + wrong;
  out = text;
  return {};
}

std::string Library::read(std::string_view text, std::string& out) {
  if (text.starts_with('/')) return AbsolutePath::read(text, out);
  if (text.find('/') != std::string_view::npos || !component_problem(text).empty())
    return is_not(text, expected);
  out = text;
  return {};
}

std::string Account::read(std::string_view text, std::string& out) {
  // No digit or sign in front: "0x", "1000abc", "-1" and " 5" have all been taken for numbers by somebody.
  const auto inner = [](char c) { return is_letter(c) || is_digit(c) || c == '_' || c == '-' || c == '.'; };
  const bool good = !text.empty() && text.size() <= 32 && (is_letter(text.front()) || text.front() == '_') &&
                    std::all_of(text.begin(), text.end(), inner);
  if (!good) return is_not(text, "a user or group name (letters, digits, '_', '-', '.'; no digit in front)");
  out = text;
  return {};
}

std::string PlainName::read(std::string_view text, std::string& out) {
  if (!valid_name(text) || text.find('@') != std::string_view::npos)
    return is_not(text, "a name (lower-case letters, digits, '.', '_', '-'; 64 bytes at most)");
  out = text;
  return {};
}

std::string PackageName::read(std::string_view text, std::string& out) {
  const auto inner = [](char c) {
    return is_letter(c) || is_digit(c) || c == '+' || c == '-' || c == '.' || c == '_';
  };
  if (text.empty() || !std::all_of(text.begin(), text.end(), inner)) return is_not(text, expected);
  out = text;
  return {};
}

std::string Symbol::read(std::string_view text, std::string& out) {
  const auto inner = [](char c) { return is_letter(c) || is_digit(c) || c == '_'; };
  if (text.empty() || !std::all_of(text.begin(), text.end(), inner)) return is_not(text, expected);
  out = text;
  return {};
}

std::string FileName::read(std::string_view text, std::string& out) {
  if (text.find('/') != std::string_view::npos)
    return fmt::format("{} is a path; a name without '/' is expected", quote(text, 64));
  if (std::string wrong = component_problem(text); !wrong.empty()) return quote(text, 64) + " " + wrong;
  out = text;
  return {};
}

std::string DevicePath::read(std::string_view text, std::string& out) {
  if (text.starts_with("/dev/"))
    return fmt::format("{} is absolute; write it relative to /dev", quote(text, 64));
  if (text.starts_with('/')) return is_not(text, expected);
  if (std::string wrong = component_problem(text); !wrong.empty()) return quote(text, 64) + " " + wrong;
  out = text;
  return {};
}

std::string Signal::read(std::string_view text, std::string& out) {
  if (!text.starts_with("SIG") || !signal_number(text))
    return is_not(text, expected) +
           did_you_mean(text.starts_with("SIG") ? text : "SIG" + std::string(text), all_signals());
  out = text;
  return {};
}

std::string ReloadHow::read(std::string_view text, std::string& out) {
  if (text == "refuse" || text == "restart" || (text.starts_with("SIG") && signal_number(text))) {
    out = text;
    return {};
  }
  std::vector<std::string> words = all_signals();
  words.insert(words.end(), {"refuse", "restart"});
  return is_not(text, expected) + did_you_mean(text, words);
}

std::string Capability::read(std::string_view text, std::string& out) {
  if (!capability_number(text)) {
    const bool prefixed = text.starts_with("cap_") || text.starts_with("CAP_");
    return is_not(text, expected) + did_you_mean(prefixed ? text.substr(4) : text, all_capabilities());
  }
  out = text;
  return {};
}

std::string SyscallName::read(std::string_view text, std::string& out) {
  const auto inner = [](char c) { return (c >= 'a' && c <= 'z') || is_digit(c) || c == '_'; };
  if (text.empty() || text.size() > 64 || !std::all_of(text.begin(), text.end(), inner))
    return is_not(text, expected);
  out = text;
  return {};
}

std::string SyscallGroup::read(std::string_view text, std::string& out) {
  if (!text.starts_with('@') || !PlainName::read(text.substr(1), out).empty()) return is_not(text, expected);
  out = text;
  return {};
}

std::string Syscall::read(std::string_view text, std::string& out) {
  const std::string wrong =
      text.starts_with('@') ? SyscallGroup::read(text, out) : SyscallName::read(text, out);
  return wrong.empty() ? wrong : is_not(text, expected);
}

std::string Port::read(std::string_view text, std::string& out) {
  const std::size_t colon = text.find(':');
  const std::string_view protocol = text.substr(0, colon);
  const auto number =
      colon == std::string_view::npos ? std::nullopt : to_number<unsigned>(text.substr(colon + 1));
  const bool plain = number && text.substr(colon + 1).front() != '0';
  if ((protocol != "udp" && protocol != "tcp") || !plain || *number > 65535)
    return is_not(text, "a port (\"udp:\" or \"tcp:\" and 1 to 65535)");
  out = text;
  return {};
}

std::string SocketName::read(std::string_view text, std::string& out) {
  // ':' separates them in LISTEN_FDNAMES.
  const auto inner = [](char c) { return is_letter(c) || is_digit(c) || c == '-' || c == '_' || c == '.'; };
  if (text.empty() || text.size() > 64 || !std::all_of(text.begin(), text.end(), inner))
    return is_not(text, "a socket's name (letters, digits, '-', '_', '.'; 64 bytes at most)");
  out = text;
  return {};
}

std::string Listen::read(std::string_view text, std::string& out) {
  const auto address = parse_socket_address(text);
  if (!address) return address.error().message;
  out = to_text(*address);
  return {};
}

std::string Hostname::read(std::string_view text, std::string& out) {
  const auto inner = [](char c) { return is_letter(c) || is_digit(c) || c == '-' || c == '.'; };
  if (text.empty() || text.size() > 64 || text.front() == '-' || text.front() == '.' ||
      !std::all_of(text.begin(), text.end(), inner))
    return is_not(text, "a host name (letters, digits, '-', '.'; 64 bytes at most)");
  out = text;
  return {};
}

std::string RestartOn::read(std::string_view text, std::string& out) {
  return one_of(text, expected, {"never", "failure", "always"}, out);
}

std::string Network::read(std::string_view text, std::string& out) {
  constexpr std::string_view named = "netns:";
  if (!text.starts_with(named)) return one_of(text, expected, {"host", "none", "private", "netns:NAME"}, out);
  if (!valid_network_name(text.substr(named.size())) || text == "netns:NAME")
    return is_not(text, "\"netns:\" and the name of a network namespace (letters, digits, '.', '_', '-')");
  out = text;
  return {};
}

std::string ReadyWhen::read(std::string_view text, std::string& out) {
  return one_of(text, expected, {"started", "notify", "listen", "check"}, out);
}

std::string Requirement::read(std::string_view text, std::string& out) {
  // The sandbox knows which of them it can enforce; here only the shape is checked.
  const auto inner = [](char c) { return (c >= 'a' && c <= 'z') || is_digit(c) || c == '-'; };
  if (text.empty() || !std::all_of(text.begin(), text.end(), inner)) return is_not(text, expected);
  out = text;
  return {};
}

std::string DlopenLevel::read(std::string_view text, std::string& out) {
  return one_of(text, expected, {"none", "required", "recommended", "suggested"}, out);
}

std::string AttributeName::read(std::string_view text, std::string& out) {
  const bool nul = text.find('\0') != std::string_view::npos;  // told already, as in any string
  if (std::string wrong = nul ? "" : attribute_problem(text); !wrong.empty())
    return quote(text, 64) + " " + wrong;
  out = text;
  return {};
}

std::string Pattern::read(std::string_view text, std::string& out) {
  if (text.empty() || text.size() > 4095 || std::any_of(text.begin(), text.end(), is_control))
    return is_not(text, expected);
  out = text;
  return {};
}

std::string Mode::read(std::string_view text, unsigned& out) {
  const auto number = to_number<unsigned>(text, 8);
  if (!number || text.size() < 3 || text.size() > 4) return is_not(text, expected);
  if ((*number & 06000U) != 0) return quote(text) + " holds set-id bits, which nothing in a jail may have";
  out = *number;
  return {};
}

Json Mode::show(unsigned value) {
  return fmt::format("{:04o}", value);
}

std::string Duration::read(std::string_view text, milliseconds& out) {
  struct Unit {
    std::string_view name;
    std::int64_t factor;
  };
  static constexpr std::array<Unit, 5> units = {
      {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}}};
  constexpr std::int64_t longest = 365LL * 86'400'000;
  const auto [digits, name] = split_unit(text);
  const auto number = to_number<std::int64_t>(digits);
  const auto unit =
      std::find_if(units.begin(), units.end(), [&name = name](const Unit& u) { return u.name == name; });
  if (!number || unit == units.end())
    return is_not(text, expected) + (number && name.empty() ? "; the unit is missing" : "");
  if (*number > longest / unit->factor) return quote(text, 64) + " is longer than a year";
  out = milliseconds(*number * unit->factor);
  return {};
}

Json Duration::show(milliseconds value) {
  const auto count = value.count();
  if (count % 1000 != 0) return fmt::format("{}ms", count);
  if (count % 60'000 != 0 || count == 0) return fmt::format("{}s", count / 1000);
  return fmt::format("{}m", count / 60'000);
}

std::string Size::read(std::string_view text, std::uint64_t& out) {
  constexpr std::string_view units = "KMGT";
  const auto [digits, name] = split_unit(text);
  const auto number = to_number<std::uint64_t>(digits);
  const std::size_t unit = name.size() == 1 ? units.find(name) : std::string_view::npos;
  if (!number || (!name.empty() && unit == std::string_view::npos)) return is_not(text, expected);
  const auto shift = static_cast<unsigned>(name.empty() ? 0 : 10 * (unit + 1));
  if (*number > (static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) >> shift))
    return quote(text, 64) + " is too large";
  out = *number << shift;
  return {};
}

Json Size::show(std::uint64_t value) {
  constexpr std::string_view units = "TGMK";
  for (unsigned i = 0; i < units.size(); ++i) {
    const unsigned shift = 10 * (4 - i);
    if (value != 0 && (value & ((1ULL << shift) - 1)) == 0)
      return fmt::format("{}{}", value >> shift, units[i]);
  }
  return fmt::format("{}", value);
}

std::string RestartLimit::read(std::string_view text, Rate& out) {
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return is_not(text, expected);
  const auto count = to_number<unsigned>(text.substr(0, slash));
  milliseconds window{};
  if (!count || *count > 1'000'000 || !Duration::read(text.substr(slash + 1), window).empty() ||
      window.count() == 0)
    return is_not(text, expected);
  out = {*count, window};
  return {};
}

Json RestartLimit::show(Rate value) {
  return fmt::format("{}/{}", value.count, Duration::show(value.window).get<std::string>());
}

}  // namespace jail::manifest
