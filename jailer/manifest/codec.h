// The kinds of value that a manifest knows. A codec reads a TOML value into its C++ type, or says why not,
// and shows it again in the manifest's notation. All have:
//   Type                                               what it reads into
//   expected                                           "an absolute path": for messages
//   static std::string read(std::string_view, Type&)   text codecs: empty when well, else what is wrong
//   static Json show(const Type&)
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "jailer/manifest/binder.h"

namespace jail::manifest {

using std::chrono::milliseconds;

/// A string codec is read through this; a problem names the value and what was expected.
template <class Codec>
bool read_text(Binder& binder, const Value& value, typename Codec::Type& out) {
  const std::string* text = value.string();
  if (text == nullptr) {
    binder.expected(value, Codec::expected);
    return false;
  }
  const std::string wrong = Codec::read(*text, out);
  if (wrong.empty()) return true;
  binder.problem(value, binder.path() + ": " + wrong);
  return false;
}

struct TextCodec {
  using Type = std::string;
  static Json show(const Type& value) { return value; }
};

#define JAIL_TEXT_CODEC(Name, words)                                  \
  struct Name : TextCodec {                                           \
    static constexpr std::string_view expected = words;               \
    static std::string read(std::string_view text, std::string& out); \
  }

JAIL_TEXT_CODEC(Text, "a string");
JAIL_TEXT_CODEC(AbsolutePath, "an absolute path");
JAIL_TEXT_CODEC(RelativePath, "a path relative to the volume");
JAIL_TEXT_CODEC(Library, "a soname or an absolute path");
JAIL_TEXT_CODEC(Account, "a user or group name");
JAIL_TEXT_CODEC(PlainName, "a name");
JAIL_TEXT_CODEC(PackageName, "a package name");
JAIL_TEXT_CODEC(Symbol, "a symbol's name");
JAIL_TEXT_CODEC(FileName, "a file's name");
JAIL_TEXT_CODEC(DevicePath, "a path relative to /dev");
JAIL_TEXT_CODEC(Signal, "a signal's name such as \"SIGTERM\"");
JAIL_TEXT_CODEC(ReloadHow, "\"refuse\", \"restart\" or a signal's name");
JAIL_TEXT_CODEC(Capability, "a capability's name such as \"net_bind_service\"");
JAIL_TEXT_CODEC(Syscall, "a system call's name or an @group");
JAIL_TEXT_CODEC(SyscallGroup, "an @group");
JAIL_TEXT_CODEC(SyscallName, "a system call's name");
JAIL_TEXT_CODEC(Port, "a port such as \"udp:53\"");
JAIL_TEXT_CODEC(SocketName, "a socket's name");
JAIL_TEXT_CODEC(Listen, "an address to listen on such as \"tcp:993\" or \"unix:/run/x/socket\"");
JAIL_TEXT_CODEC(Hostname, "a host name");
JAIL_TEXT_CODEC(RestartOn, "\"never\", \"failure\" or \"always\"");
JAIL_TEXT_CODEC(Network, "\"host\", \"none\", \"private\" or \"netns:NAME\"");
JAIL_TEXT_CODEC(ReadyWhen, "\"started\", \"notify\", \"listen\" or \"check\"");
JAIL_TEXT_CODEC(Requirement, "a feature's name");
JAIL_TEXT_CODEC(DlopenLevel, "\"none\", \"required\", \"recommended\" or \"suggested\"");
JAIL_TEXT_CODEC(AttributeName, "the name of an extended attribute such as \"security.capability\"");
JAIL_TEXT_CODEC(Pattern, "a name or a pattern such as \"lib*.so.1\"");
#undef JAIL_TEXT_CODEC

struct Mode {
  using Type = unsigned;
  static constexpr std::string_view expected = "a mode as a string of octal digits such as \"0750\"";
  static std::string read(std::string_view text, Type& out);
  static Json show(Type value);
};

struct Duration {
  using Type = milliseconds;
  static constexpr std::string_view expected = "a duration such as \"100ms\", \"30s\" or \"2m\"";
  static std::string read(std::string_view text, Type& out);
  static Json show(Type value);
};

/// Bytes: "64M" (powers of 1024), or an integer.
struct Size {
  using Type = std::uint64_t;
  static constexpr std::string_view expected = "a size such as \"64M\" or \"1G\", or an integer of bytes";
  static std::string read(std::string_view text, Type& out);
  static Json show(Type value);
};

/// [service.restart] limit: "5/60s", so many restarts in so long a window.
struct Rate {
  unsigned count = 0;
  milliseconds window{0};
};
struct RestartLimit {
  using Type = Rate;
  static constexpr std::string_view expected = "a limit such as \"5/60s\"";
  static std::string read(std::string_view text, Type& out);
  static Json show(Type value);
};

/// Why `path` cannot be one of ours, empty if it can: absolute, normalised, without control bytes.
[[nodiscard]] std::string path_problem(std::string_view path);

}  // namespace jail::manifest
