// The launch spec: all that the sandbox and the supervisor need to run one generation, resolved to numbers
// and ready to apply. The jailer writes it (policy/), jaild reads it. One plain struct, and its JSON form.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/spec/generation.h"

namespace jail {

using std::chrono::milliseconds;

/// A mount below the jail's root, in the order in which they are made. The private ones (/dev, /proc, /tmp,
/// /run) are entries too: the list is the whole truth.
struct Mount {
  enum class Kind : std::uint8_t {
    bind,   ///< `source`, a directory or file of the host (volume, config)
    tmpfs,  ///< an empty file system of `size` bytes
    proc,   ///< a new /proc of the jail's pid namespace, subset=pid, hidepid=invisible
    dev,    ///< a small tmpfs with `devices`, the standard links, and log
  };
  Kind kind = Kind::bind;
  std::string source;  ///< absolute, on the host; bind only
  std::string target;  ///< absolute, in the jail; exists in the tree, except below another mount of the list
  bool writable = false;
  bool exec = false;       ///< otherwise noexec; nosuid and nodev always
  std::uint64_t size = 0;  ///< bytes; tmpfs only
  std::uint32_t mode = 0;  ///< of a tmpfs' root
  std::uint32_t uid = 0;   ///< of a tmpfs' root
  std::uint32_t gid = 0;
  bool optional = false;  ///< a source that does not exist is left out
  bool operator==(const Mount&) const = default;
};

/// A device node of the tree's own /dev, shown in the private one. The path is relative to /dev.
struct Device {
  std::string path;
  bool operator==(const Device&) const = default;
};

struct Rlimit {
  std::string resource;  ///< the kernel's name, lower case: "nofile", "core", "nproc" ...
  std::uint64_t soft = 0;
  std::uint64_t hard = 0;
  bool at_most = false;  ///< where the supervisor's own hard limit is lower, that one is good enough
  bool operator==(const Rlimit&) const = default;
};

/// A port that the service must listen on to be ready, or may use.
struct Port {
  enum class Protocol : std::uint8_t { tcp, udp };
  Protocol protocol = Protocol::tcp;
  std::uint16_t number = 0;
  bool operator==(const Port&) const = default;
};

/// A socket that jaild opens, keeps and passes to the daemon (sd_listen_fds(3)).
struct Socket {
  std::string name;              ///< LISTEN_FDNAMES; several may share one
  std::string listen;            ///< see spec/socket_address.h
  std::uint32_t backlog = 4096;  ///< connections that may wait to be accepted
  std::uint32_t mode = 0600;     ///< of a unix socket's file; so are the next two
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  bool operator==(const Socket&) const = default;
};

/// What the daemon is, in the kernel's numbers. Applied exactly: nothing is added, nothing kept.
struct Credentials {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::vector<std::uint32_t> groups;  ///< supplementary; sorted
  std::uint64_t capabilities =
      0;  ///< bounding set; also permitted and effective, and ambient unless uid is 0
  std::uint32_t umask = 0022;
  bool operator==(const Credentials&) const = default;
};

struct Restart {
  enum class On : std::uint8_t { never, failure, always };
  On on = On::failure;
  milliseconds delay{100};  ///< before the first restart; doubled for each that follows
  milliseconds max_delay{30000};
  std::uint32_t limit = 5;     ///< so many restarts in `window` ...
  milliseconds window{60000};  ///< ... and the service stays down as failed; a run this long resets the delay
  bool operator==(const Restart&) const = default;
};

struct Stop {
  int signal = 15;
  milliseconds timeout{10000};  ///< then SIGKILL
  bool operator==(const Stop&) const = default;
};

/// What `jail reload` does.
struct Reload {
  enum class How : std::uint8_t { refuse, signal, restart };
  How how = How::refuse;
  int signal = 0;
  bool operator==(const Reload&) const = default;
};

/// All that are set must be true before the service counts as ready.
struct Ready {
  bool notify = false;  ///< READY=1 on the notify socket
  bool listen = false;  ///< every port of `listen_ports` and `sockets` has a listening socket of this service
  bool check = false;   ///< the check succeeded once
  milliseconds timeout{30000};
  bool operator==(const Ready&) const = default;
};

/// A command of the host that asks the service as its clients do. Run outside the jail by jaild, as nobody,
/// in the service's network namespace.
struct Check {
  std::vector<std::string> command;
  std::string expect;  ///< must be part of the standard output; empty: the exit status alone decides
  milliseconds timeout{5000};
  milliseconds interval{0};  ///< repeated so often while the service runs; 0: only for readiness
  bool operator==(const Check&) const = default;
};

/// cgroup v2 limits; 0 is none.
struct Limits {
  std::uint64_t memory = 0;  ///< bytes
  std::uint64_t processes = 0;
  bool operator==(const Limits&) const = default;
};

/// A file that the merged manifest was read from, so that an edit since the build can be told.
struct ManifestSource {
  std::string path;
  std::string sha256;  ///< lower-case hex
  bool operator==(const ManifestSource&) const = default;
};

struct LaunchSpec {
  static constexpr int current_version = 1;
  int version = current_version;
  std::string name;
  std::string description;
  std::vector<std::string> provides;  ///< beyond its name; sorted. See spec/provides.h
  std::vector<ManifestSource> sources;

  std::vector<std::string> argv;  ///< argv[0] is the absolute path in the jail
  std::vector<std::string> env;   ///< KEY=value; the whole environment but for what sd_notify and sockets add
  std::string cwd = "/";
  std::string hostname;  ///< of the jail's uts namespace
  enum class Network : std::uint8_t {
    host,
    none,
    private_,  ///< one of its own, new at each launch, with nothing but a loopback
    named,     ///< `network_name` in /run/netns, as ip-netns(8) makes them; shared by all that name it
  } network = Network::host;
  std::string network_name;  ///< empty unless named

  Credentials credentials;
  std::vector<Mount> mounts;
  std::vector<Device> devices;
  /// Where /dev/log is shown besides: absolute, each on a tmpfs of `mounts`.
  std::vector<std::string> log_sockets;
  std::vector<Rlimit> rlimits;
  Limits limits;
  int oom_score_adjust = 0;
  int nice = 0;
  bool memory_deny_write_execute = true;  ///< PR_SET_MDWE, where the kernel has it (6.3)
  std::vector<std::string> require;       ///< what must be enforceable beyond the floor, else nothing runs

  std::vector<Socket> sockets;  ///< in the order of their descriptors, from 3
  Ready ready;
  std::vector<Port> listen_ports;
  std::vector<Port> optional_ports;  ///< may be listened on, too; readiness does not wait for them
  std::vector<Port> connect_ports;
  bool restrict_ports = false;  ///< TCP: none but these, where the kernel can (Landlock, 6.7)
  std::optional<Check> check;
  Restart restart;
  Stop stop;
  Reload reload;
  std::vector<std::string> check_config;  ///< argv; run in the jail before a reload or restart; empty: none
  bool operator==(const LaunchSpec&) const = default;
};

/// The JSON form: sorted keys, durations in milliseconds as integers, enums as their names, capabilities as a
/// sorted list of names ("net_bind_service"). Ends in a newline; byte-identical for equal specs.
[[nodiscard]] std::string to_json(const LaunchSpec& spec);

/// Reads what to_json() wrote. Strict: an unknown key, a wrong type, another version is Exit::config with the
/// key's path. `name` is for messages.
[[nodiscard]] Result<LaunchSpec> launch_spec_from_json(std::string_view text, std::string_view name);

/// Of a generation. Exit::no_input where it has none.
[[nodiscard]] Result<LaunchSpec> read_launch_spec(const generation::Opened& opened);

/// "net_bind_service" <-> 10. Names as capabilities(7) has them, lower case, without CAP_.
[[nodiscard]] std::optional<unsigned> capability_number(std::string_view name);
[[nodiscard]] std::string capability_name(unsigned number);
/// The names of a mask, sorted by number.
[[nodiscard]] std::vector<std::string> capability_names(std::uint64_t mask);

/// A plain name of a file in /run/netns: letters, digits, '.', '_', '-', no '.' or '-' in front, 64 bytes at
/// most.
[[nodiscard]] bool valid_network_name(std::string_view name);

/// "SIGTERM" <-> 15; nothing for an unknown name.
[[nodiscard]] std::optional<int> signal_number(std::string_view name);
[[nodiscard]] std::string signal_name(int number);

}  // namespace jail
