// Names to numbers, and the list of mounts: what the sandbox applies is all said here.
#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include "jailer/closure/accounts.h"
#include "jailer/manifest/suggest.h"
#include "jailer/policy/policy.h"
#include "supervisor/base/quote.h"
#include "supervisor/spec/socket_address.h"

namespace jail {
namespace {

constexpr std::uint64_t run_size = 4ULL << 20U;  // /run holds mount points and the notify socket
constexpr std::uint32_t run_mode = 0755;
constexpr std::uint32_t tmp_mode = 01777;
constexpr std::uint64_t log_directory_size = 4096;  // one name
constexpr std::uint32_t log_directory_mode = 0755;

/// RLIMIT_NOFILE where the manifest says nothing: as systemd, a soft limit that select(2) can live with, and
/// a hard one to which a daemon may raise it. A manifest's `files` is both.
constexpr std::uint64_t files_soft = 1024;
constexpr std::uint64_t files_hard = 524288;

constexpr const char* path_variable = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What `require` may demand: supervisor/sandbox/features.cpp can tell of each whether the kernel has it.
const std::vector<std::string>& requirable() {
  static const std::vector<std::string> names = {"cgroup",       "cgroup-memory",  "cgroup-pids",
                                                 "landlock-net", "landlock-scope", "mdwe"};
  return names;
}

template <class Value>
struct Word {
  std::string_view word;
  Value value;
};

class SpecMaker {
 public:
  SpecMaker(const Instance& instance, const manifest::Manifest& manifest, const Accounts& accounts)
      : instance_(instance), m_(manifest), accounts_(accounts) {}

  Result<LaunchSpec> make() {
    spec_.name = m_.name;
    spec_.description = m_.description;
    spec_.provides = m_.provides;
    std::sort(spec_.provides.begin(), spec_.provides.end());
    for (const manifest::Source& source : m_.sources) spec_.sources.push_back({source.path, source.sha256});
    command();
    credentials();
    mounts();
    sandbox();
    sockets();
    readiness();
    life();
    if (!problems_.empty()) return fail(Exit::manifest, "{}", fmt::join(problems_, "\n"));
    return std::move(spec_);
  }

 private:
  void problem(const std::string& place, const std::string& text) {
    problems_.push_back(m_.where(place) + text);
  }
  void problem(const std::string& place, const Error& error) {
    problem(place, error.hint.empty() ? error.message : fmt::format("{} ({})", error.message, error.hint));
  }

  template <class Value, std::size_t count>
  Value word(const std::string& text, const std::array<Word<Value>, count>& words, const std::string& place) {
    std::vector<std::string> known;
    for (const Word<Value>& candidate : words) {
      if (candidate.word == text) return candidate.value;
      known.emplace_back(candidate.word);
    }
    problem(place, fmt::format("{}: expected one of {}", quote(text, 64), fmt::join(known, ", ")));
    return words.front().value;
  }

  void command() {
    spec_.argv = m_.service.command;
    if (spec_.argv.empty() || spec_.argv.front().empty() || spec_.argv.front().front() != '/')
      problem("service.command", "service.command: expected an absolute path and its arguments");
    spec_.check_config = m_.service.check_config;
    if (!spec_.check_config.empty() && !spec_.check_config.front().starts_with('/'))
      problem("service.check_config", "service.check_config: expected an absolute path and its arguments");
    spec_.cwd = m_.service.directory;
    spec_.hostname = m_.sandbox.hostname.empty() ? default_hostname() : m_.sandbox.hostname;
  }

  /// The jail's name, without what a host name cannot hold ('@' and '_').
  [[nodiscard]] std::string default_hostname() const {
    std::string name = m_.name;
    std::replace_if(
        name.begin(), name.end(), [](char c) { return c == '@' || c == '_'; }, '-');
    return name;
  }

  std::uint32_t group(const std::string& name, const std::string& place) {
    const auto gid = group_id(accounts_, name);
    if (!gid) problem(place, no_such_group(name, m_.packages));
    return gid.value_or(0);
  }

  void credentials() {
    Credentials& who = spec_.credentials;
    const manifest::Service& service = m_.service;
    const std::string user = service.user.empty() ? "root" : service.user;
    const auto uid = user_id(accounts_, user);
    const auto gid = primary_group(accounts_, user);
    if (!uid || !gid) problem("service.user", no_such_user(user, m_.packages));
    who.uid = uid.value_or(0);
    who.gid = service.group.empty() ? gid.value_or(0) : group(service.group, "service.group");
    for (std::size_t i = 0; i < service.groups.size(); ++i)
      who.groups.push_back(group(service.groups[i], fmt::format("service.groups[{}]", i)));
    std::sort(who.groups.begin(), who.groups.end());
    who.groups.erase(std::unique(who.groups.begin(), who.groups.end()), who.groups.end());
    for (std::size_t i = 0; i < m_.sandbox.capabilities.size(); ++i) {
      if (const auto number = capability_number(m_.sandbox.capabilities[i])) {
        who.capabilities |= 1ULL << *number;
      } else {
        problem(fmt::format("sandbox.capabilities[{}]", i),
                fmt::format("unknown capability {}{}", quote(m_.sandbox.capabilities[i], 64),
                            manifest::did_you_mean(m_.sandbox.capabilities[i], capability_names(~0ULL))));
      }
    }
    who.umask = service.umask;
    environment(user);
  }

  void environment(const std::string& user) {
    std::map<std::string, std::string> all;
    const UserEntry* entry = accounts_.user(user);
    all["HOME"] = entry != nullptr && !entry->home.empty() ? entry->home : "/";
    all["USER"] = all["LOGNAME"] = user;
    const std::string path = path_variable;
    all["PATH"] = path.substr(path.find('=') + 1);
    for (const auto& [key, value] : m_.service.environment) all[key] = value;
    for (const auto& [key, value] : all) spec_.env.push_back(key + "=" + value);
  }

  static Mount private_mount(Mount::Kind kind, const char* target, std::uint64_t size, std::uint32_t mode) {
    Mount mount;
    mount.kind = kind;
    mount.target = target;
    mount.size = size;
    mount.mode = mode;
    mount.writable = kind == Mount::Kind::tmpfs;
    return mount;
  }

  void mounts() {
    spec_.mounts = {private_mount(Mount::Kind::dev, "/dev", 0, 0),
                    private_mount(Mount::Kind::proc, "/proc", 0, 0),
                    private_mount(Mount::Kind::tmpfs, "/tmp", m_.sandbox.tmp, tmp_mode),
                    private_mount(Mount::Kind::tmpfs, "/run", run_size, run_mode)};
    const auto own = static_cast<std::ptrdiff_t>(spec_.mounts.size());
    for (const manifest::Config& config : m_.configs) {
      Mount mount;
      mount.source = config.from;
      mount.target = config.to.empty() ? config.from : config.to;
      mount.optional = config.optional;
      add_bind(std::move(mount), "config." + config.to);
    }
    for (const manifest::Volume& volume : m_.volumes) {
      Mount mount;
      mount.source = instance_.volumes() + "/" + volume.name;
      mount.target = volume.path;
      mount.writable = true;
      mount.exec = volume.exec;
      add_bind(std::move(mount), "volume." + volume.name);
    }
    for (std::size_t i = 0; i < m_.service.log_sockets.size(); ++i) log_socket(i);
    // By target: what a mount lies in comes before it.
    std::sort(spec_.mounts.begin() + own, spec_.mounts.end(),
              [](const Mount& a, const Mount& b) { return a.target < b.target; });
    for (const std::string& name : m_.tree.devices) spec_.devices.push_back({name});
  }

  /// A directory of its own, which holds the socket and nothing else: the daemon's volume needs no file for
  /// it.
  void log_socket(std::size_t number) {
    const std::string& path = m_.service.log_sockets[number];
    const std::size_t slash = path.rfind('/');
    if (slash == std::string::npos || path != normal_path(path))
      return problem("service.log_sockets", fmt::format("{} is not a plain absolute path", quote(path)));
    Mount mount = private_mount(Mount::Kind::tmpfs, "", log_directory_size, log_directory_mode);
    mount.target = path.substr(0, slash);
    mount.writable = false;
    const bool shared = std::any_of(spec_.mounts.begin(), spec_.mounts.end(),
                                    [&](const Mount& other) { return other == mount; });
    if (!shared) add_mount(std::move(mount), fmt::format("service.log_sockets[{}]", number));
    spec_.log_sockets.push_back(path);
  }

  /// The manifest's reader refuses these too; what is mounted as root is looked at once more.
  void add_bind(Mount mount, const std::string& place) {
    const std::string& source = mount.source;
    if (!source.starts_with('/') || (source + "/").find("/../") != std::string::npos ||
        source.find('\0') != std::string::npos)
      return problem(place, fmt::format("{} cannot be mounted on {}", quote(source), quote(mount.target)));
    add_mount(std::move(mount), place);
  }

  void add_mount(Mount mount, const std::string& place) {
    const std::string& target = mount.target;
    bool reserved = !target.starts_with('/') || target == "/" || target == "/run" || target == "/tmp" ||
                    target != normal_path(target) || (target + "/").find("/../") != std::string::npos ||
                    target.find('\0') != std::string::npos;
    for (const char* own : {"/dev", "/proc", "/sys", "/run/systemd"})
      reserved = reserved || is_at_or_below(target, own);
    const bool taken = std::any_of(spec_.mounts.begin(), spec_.mounts.end(),
                                   [&](const Mount& other) { return other.target == target; });
    if (reserved) {
      const std::string what = mount.source.empty() ? "nothing" : quote(mount.source);
      problem(place, fmt::format("{} cannot be mounted on {}", what, quote(target)));
    } else if (taken) {
      problem(place, fmt::format("two mounts on {}", quote(target)));
    } else {
      spec_.mounts.push_back(std::move(mount));
    }
  }

  void sandbox() {
    const manifest::Sandbox& sandbox = m_.sandbox;
    network(sandbox.network);
    spec_.limits.memory = sandbox.limits.memory.value_or(0);
    spec_.limits.processes = sandbox.limits.processes.value_or(0);
    const std::uint64_t core = sandbox.limits.core.value_or(0);
    spec_.rlimits = {{"core", core, core}, {"nofile", files_soft, files_hard, true}};
    if (const auto files = sandbox.limits.files) spec_.rlimits.back() = {"nofile", *files, *files};
    spec_.memory_deny_write_execute = sandbox.memory_deny_write_execute;
    for (std::size_t i = 0; i < sandbox.require.size(); ++i) {
      const auto& known = requirable();
      if (std::find(known.begin(), known.end(), sandbox.require[i]) == known.end())
        problem(fmt::format("sandbox.require[{}]", i),
                fmt::format("{} is nothing that jail can enforce; known: {}{}", quote(sandbox.require[i], 64),
                            fmt::join(known, ", "), manifest::did_you_mean(sandbox.require[i], known)));
    }
    spec_.require = sandbox.require;
    for (std::size_t i = 0; i < sandbox.listen.size(); ++i)
      port(sandbox.listen[i], fmt::format("sandbox.ports.listen[{}]", i), spec_.listen_ports);
    for (std::size_t i = 0; i < sandbox.optional.size(); ++i)
      port(sandbox.optional[i], fmt::format("sandbox.ports.optional[{}]", i), spec_.optional_ports);
    for (std::size_t i = 0; i < sandbox.connect.size(); ++i)
      port(sandbox.connect[i], fmt::format("sandbox.ports.connect[{}]", i), spec_.connect_ports);
    spec_.restrict_ports = names_ports();
  }

  /// "host", or "netns:NAME"
  void network(const std::string& text) {
    using Network = LaunchSpec::Network;
    static constexpr std::array<Word<Network>, 3> words = {
        {{"none", Network::none}, {"host", Network::host}, {"private", Network::private_}}};
    constexpr std::string_view named = "netns:";
    if (!text.starts_with(named)) {
      spec_.network = word(text, words, "sandbox.network");
      return;
    }
    spec_.network = Network::named;
    spec_.network_name = text.substr(named.size());
    if (!valid_network_name(spec_.network_name))
      problem("sandbox.network",
              fmt::format("{} cannot be the name of a network namespace", quote(spec_.network_name, 64)));
  }

  /// A manifest that says nothing of ports leaves them open; one that does, an empty list too, means just
  /// these.
  [[nodiscard]] bool names_ports() const {
    return !m_.sandbox.listen.empty() || !m_.sandbox.optional.empty() || !m_.sandbox.connect.empty() ||
           std::any_of(m_.origins.begin(), m_.origins.end(), [](const auto& entry) {
             return entry.first == "sandbox.ports" || entry.first.starts_with("sandbox.ports.");
           });
  }

  /// "udp:53"
  void port(const std::string& text, const std::string& place, std::vector<Port>& into) {
    const std::string_view number = std::string_view(text).substr(std::min(text.size(), std::size_t{4}));
    std::uint16_t value = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    const bool udp = text.starts_with("udp:");
    if ((!udp && !text.starts_with("tcp:")) || error != std::errc() || end != number.data() + number.size() ||
        value == 0)
      return problem(place, fmt::format("{}: expected a port such as \"udp:53\"", quote(text, 64)));
    into.push_back({udp ? Port::Protocol::udp : Port::Protocol::tcp, value});
  }

  void sockets() {
    for (const manifest::Socket& socket : m_.sockets) {
      const std::string place = "socket." + socket.name;
      const auto uid = user_id(accounts_, socket.owner);
      if (!uid) problem(place + ".owner", no_such_user(socket.owner, m_.packages));
      const std::uint32_t gid = socket.group.empty() ? primary_group(accounts_, socket.owner).value_or(0)
                                                     : group(socket.group, place + ".group");
      for (const std::string& listen : socket.listen) {
        const auto address = parse_socket_address(listen);
        if (!address)
          problem(place + ".listen", address.error());
        else
          spec_.sockets.push_back(
              {socket.name, to_text(*address), socket.backlog, socket.mode, uid.value_or(0), gid});
      }
    }
  }

  void readiness() {
    spec_.ready.timeout = m_.service.ready_timeout;
    struct Flag {
      std::string_view word;
      bool* set;
    };
    bool started = false;
    const std::array<Flag, 4> flags = {{{"started", &started},
                                        {"notify", &spec_.ready.notify},
                                        {"listen", &spec_.ready.listen},
                                        {"check", &spec_.ready.check}}};
    for (const std::string& text : m_.service.ready) {
      const auto flag =
          std::find_if(flags.begin(), flags.end(), [&](const Flag& f) { return f.word == text; });
      if (flag == flags.end()) {
        problem("service.ready",
                fmt::format("{}: expected started, notify, listen or check", quote(text, 64)));
      } else {
        *flag->set = true;
      }
    }
    if (m_.check)
      spec_.check = Check{m_.check->command, m_.check->expect, m_.check->timeout, m_.check->interval};
    if (spec_.ready.check && !spec_.check) problem("service.ready", "\"check\" needs a [check]");
    if (spec_.ready.listen && spec_.listen_ports.empty() && spec_.sockets.empty())
      problem("service.ready", "\"listen\" needs sandbox.ports.listen or a [[socket]]");
  }

  int signal(const std::string& name, const std::string& place) {
    const auto number = signal_number(name);
    if (!number) problem(place, fmt::format("unknown signal {}", quote(name, 64)));
    return number.value_or(0);
  }

  void life() {
    using On = Restart::On;
    const manifest::Service& service = m_.service;
    static constexpr std::array<Word<On>, 3> ons = {
        {{"never", On::never}, {"failure", On::failure}, {"always", On::always}}};
    const manifest::Restart& restart = service.restart;
    spec_.restart = {word(restart.on, ons, "service.restart.on"), restart.delay, restart.max_delay,
                     restart.limit, restart.window};
    spec_.stop = {signal(service.stop.signal, "service.stop.signal"), service.stop.timeout};
    if (service.reload == "restart") {
      spec_.reload = {Reload::How::restart, 0};
    } else if (service.reload != "refuse") {
      spec_.reload = {Reload::How::signal, signal(service.reload, "service.reload")};
    }
    spec_.nice = service.nice;
    spec_.oom_score_adjust = service.oom_score_adjust;
  }

  const Instance& instance_;
  const manifest::Manifest& m_;
  const Accounts& accounts_;
  LaunchSpec spec_;
  std::vector<std::string> problems_;
};

}  // namespace

Result<LaunchSpec> make_launch_spec(const Instance& instance, const manifest::Manifest& manifest,
                                    const Accounts& accounts) {
  return SpecMaker(instance, manifest, accounts).make();
}

}  // namespace jail
