// The tables: every key of a manifest, its kind of value, how a drop-in joins it.
// contrib/schema/manifest.schema.json and contrib/man/jail.toml.5 say the same to editors and people; a test
// holds the three together.
#include "jailer/manifest/schema.h"

#include <algorithm>
#include <array>

#include "jailer/manifest/fields.h"

namespace jail::manifest {

// clang-format off
template <> std::span<const Field<File>> fields<File>();
template <> std::span<const Field<Tree>> fields<Tree>();
template <> std::span<const Field<Dlopen>> fields<Dlopen>();
template <> std::span<const Field<Config>> fields<Config>();
template <> std::span<const Field<Plugins>> fields<Plugins>();
template <> std::span<const Field<Probe>> fields<Probe>();
template <> std::span<const Field<VolumeDirectory>> fields<VolumeDirectory>();
template <> std::span<const Field<Volume>> fields<Volume>();
template <> std::span<const Field<Socket>> fields<Socket>();
template <> std::span<const Field<Restart>> fields<Restart>();
template <> std::span<const Field<Stop>> fields<Stop>();
template <> std::span<const Field<Service>> fields<Service>();
template <> std::span<const Field<Limits>> fields<Limits>();
template <> std::span<const Field<Sandbox>> fields<Sandbox>();
template <> std::span<const Field<Check>> fields<Check>();
template <> std::span<const Field<Refresh>> fields<Refresh>();
template <> std::vector<std::string_view> identity_keys<File>();
template <> std::vector<std::string_view> identity_keys<Config>();
template <> std::vector<std::string_view> identity_keys<VolumeDirectory>();
template <> std::vector<std::string_view> identity_keys<Plugins>();
template <> std::vector<std::string_view> identity_keys<Probe>();
template <> std::vector<std::string_view> identity_keys<Volume>();
template <> std::vector<std::string_view> identity_keys<Socket>();
// clang-format on

namespace {

constexpr std::array<std::string_view, 5> default_devices = {"full", "null", "random", "urandom", "zero"};
constexpr std::array<std::string_view, 1> default_syscalls = {"@default"};

constexpr std::int64_t most = 1'000'000'000;

// A word or an array of words, which a drop-in replaces: service.ready, socket.listen.
template <auto Pointer, class Codec>
constexpr Field<Owner<Pointer>> one_or_many(std::string_view name, bool required = false) {
  using O = Owner<Pointer>;
  Field<O> field = set_of<Pointer, Codec>(name, required);
  field.merge = Merge::replace;
  field.bind = [](Binder& binder, O& target, const Value& value) {
    if (value.string() == nullptr && value.array() == nullptr)
      return binder.expected(value, std::string(Codec::expected) + ", or an array of these");
    if (value.array() != nullptr) {
      target.*Pointer = read_list<Codec>(binder, value, true);
      return;
    }
    std::string word;
    if (read_text<Codec>(binder, value, word)) target.*Pointer = {word};
  };
  return field;
}

// service.environment: free keys.
void bind_environment(Binder& binder, Service& service, const Value& value) {
  const Value::Table* members = value.table();
  if (members == nullptr) return binder.expected(value, "a table of strings");
  const auto inner = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  };
  static constexpr std::array<std::string_view, 4> ours = {"LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID",
                                                           "NOTIFY_SOCKET"};
  for (const Member& member : *members) {
    const Binder::Scope scope(binder, member.key);
    const bool named = !member.key.empty() && !(member.key[0] >= '0' && member.key[0] <= '9') &&
                       std::all_of(member.key.begin(), member.key.end(), inner);
    if (!named) {
      binder.problem(member.value,
                     fmt::format("{} cannot name an environment variable", quote(member.key, 64)));
    } else if (std::find(ours.begin(), ours.end(), member.key) != ours.end()) {
      binder.problem(member.value, member.key + " is set by the supervisor alone");
    } else if (std::string text; read_text<Text>(binder, member.value, text)) {
      binder.note(member.value.origin);
      service.environment[member.key] = std::move(text);
    }
  }
}

constexpr Field<Service> environment_field() {
  return {
      "environment",
      Merge::map,
      false,
      bind_environment,
      [](const Service& service) { return service.environment.empty() ? Json() : Json(service.environment); },
      nullptr};
}

// service.restart.limit: two members in one value.
constexpr Field<Restart> limit_field() {
  return {"limit",
          Merge::replace,
          false,
          [](Binder& binder, Restart& restart, const Value& value) {
            Rate rate;
            if (!read_text<RestartLimit>(binder, value, rate)) return;
            restart.limit = rate.count;
            restart.window = rate.window;
          },
          [](const Restart& restart) {
            return RestartLimit::show({restart.limit, restart.window});
          },
          nullptr};
}

// sandbox.ports: a table whose keys are members of Sandbox.
constexpr std::array<Field<Sandbox>, 3> ports_table = {
    set_of<&Sandbox::listen, Port>("listen"),
    set_of<&Sandbox::optional, Port>("optional"),
    set_of<&Sandbox::connect, Port>("connect"),
};

constexpr Field<Sandbox> ports_field() {
  return {"ports",
          Merge::fields,
          false,
          [](Binder& binder, Sandbox& sandbox, const Value& value) {
            bind_table<Sandbox>(binder, sandbox, value, ports_table, table_name(binder.path(), false));
          },
          [](const Sandbox& sandbox) {
            Json ports = show_table<Sandbox>(sandbox, ports_table);
            return ports.empty() ? Json() : ports;
          },
          [](Key& key) { key.children = describe<Sandbox>(ports_table); }};
}

constexpr Field<Tree> devices_field() {
  Field<Tree> field = set_of<&Tree::devices, DevicePath>("devices");
  field.describe = [](Key& key) { key.seed = {default_devices.begin(), default_devices.end()}; };
  return field;
}

constexpr Field<Sandbox> syscalls_field() {
  Field<Sandbox> field = set_of<&Sandbox::syscalls, Syscall>("syscalls");
  field.describe = [](Key& key) { key.seed = {default_syscalls.begin(), default_syscalls.end()}; };
  return field;
}

constexpr std::array<Field<File>, 8> file_table = {
    text<&File::to, AbsolutePath>("to", true),
    text<&File::from, AbsolutePath>("from"),
    text<&File::text, Text>("text"),
    text<&File::mode, Mode>("mode"),
    text<&File::owner, Account>("owner"),
    text<&File::group, Account>("group"),
    flag<&File::secret>("secret"),
    set_of<&File::xattrs, AttributeName>("xattrs"),
};

constexpr std::array<Field<Tree>, 9> tree_table = {
    set_of<&Tree::binaries, AbsolutePath>("binaries", true),
    set_of<&Tree::libraries, Library>("libraries"),
    set_of<&Tree::include, PlainName>("include"),
    set_of<&Tree::exclude, PlainName>("exclude"),
    entries<&Tree::files>("files"),
    set_of<&Tree::users, Account>("users", true),
    set_of<&Tree::groups, Account>("groups"),
    devices_field(),
    set_of<&Tree::directories, AbsolutePath>("directories"),
};

constexpr std::array<Field<Dlopen>, 4> dlopen_table = {
    text<&Dlopen::level, DlopenLevel>("level"),
    set_of<&Dlopen::include, Pattern>("include"),
    set_of<&Dlopen::omit, Pattern>("omit"),
    set_of<&Dlopen::ignore, Pattern>("ignore"),
};

constexpr std::array<Field<Config>, 3> config_table = {
    text<&Config::from, AbsolutePath>("from", true),
    text<&Config::to, AbsolutePath>("to"),
    flag<&Config::optional>("optional"),
};

constexpr std::array<Field<VolumeDirectory>, 4> volume_directory_table = {
    text<&VolumeDirectory::path, RelativePath>("path", true),
    text<&VolumeDirectory::owner, Account>("owner"),
    text<&VolumeDirectory::group, Account>("group"),
    text<&VolumeDirectory::mode, Mode>("mode"),
};

constexpr std::array<Field<Volume>, 8> volume_table = {
    text<&Volume::name, PlainName>("name", true),
    text<&Volume::path, AbsolutePath>("path", true),
    text<&Volume::owner, Account>("owner"),
    text<&Volume::group, Account>("group"),
    text<&Volume::mode, Mode>("mode"),
    flag<&Volume::exec>("exec"),
    set_of<&Volume::files, FileName>("files"),
    entries<&Volume::directories>("directories"),
};

constexpr std::array<Field<Socket>, 6> socket_table = {
    text<&Socket::name, SocketName>("name", true), one_or_many<&Socket::listen, Listen>("listen", true),
    number<&Socket::backlog, 1, 65535>("backlog"), text<&Socket::owner, Account>("owner"),
    text<&Socket::group, Account>("group"),        text<&Socket::mode, Mode>("mode"),
};

constexpr std::array<Field<Restart>, 4> restart_table = {
    text<&Restart::on, RestartOn>("on"),
    text<&Restart::delay, Duration>("delay"),
    text<&Restart::max_delay, Duration>("max_delay"),
    limit_field(),
};

constexpr std::array<Field<Stop>, 2> stop_table = {
    text<&Stop::signal, Signal>("signal"),
    text<&Stop::timeout, Duration>("timeout"),
};

constexpr std::array<Field<Service>, 16> service_table = {
    command<&Service::command>("command", true),
    text<&Service::user, Account>("user", true),
    text<&Service::group, Account>("group"),
    set_of<&Service::groups, Account>("groups"),
    environment_field(),
    text<&Service::directory, AbsolutePath>("directory"),
    text<&Service::umask, Mode>("umask"),
    one_or_many<&Service::ready, ReadyWhen>("ready"),
    text<&Service::ready_timeout, Duration>("ready_timeout"),
    text<&Service::reload, ReloadHow>("reload"),
    command<&Service::check_config>("check_config"),
    set_of<&Service::log_sockets, AbsolutePath>("log_sockets"),
    table<&Service::restart>("restart"),
    table<&Service::stop>("stop"),
    number<&Service::nice, -20, 19>("nice"),
    number<&Service::oom_score_adjust, -1000, 1000>("oom_score_adjust"),
};

constexpr std::array<Field<Limits>, 4> limits_table = {
    size<&Limits::memory, 65536>("memory"),
    number<&Limits::processes, 1, most>("processes"),
    number<&Limits::files, 8, most>("files"),
    size<&Limits::core>("core"),
};

constexpr std::array<Field<Sandbox>, 9> sandbox_table = {
    set_of<&Sandbox::capabilities, Capability>("capabilities"),
    syscalls_field(),
    text<&Sandbox::network, Network>("network"),
    ports_field(),
    table<&Sandbox::limits>("limits"),
    size<&Sandbox::tmp, 4096>("tmp"),
    text<&Sandbox::hostname, Hostname>("hostname"),
    flag<&Sandbox::memory_deny_write_execute>("memory_deny_write_execute"),
    set_of<&Sandbox::require, Requirement>("require"),
};

constexpr std::array<Field<Check>, 4> check_table = {
    command<&Check::command>("command", true),
    text<&Check::expect, Text>("expect"),
    text<&Check::timeout, Duration>("timeout"),
    text<&Check::interval, Duration>("interval"),
};

constexpr std::array<Field<Refresh>, 1> refresh_table = {
    flag<&Refresh::automatic>("automatic"),
};

constexpr std::array<Field<Manifest>, 13> manifest_table = {
    version<Manifest>(),
    text<&Manifest::description, Text>("description"),
    set_of<&Manifest::packages, PackageName>("packages"),
    one_or_many<&Manifest::provides, PlainName>("provides"),
    table<&Manifest::tree>("tree", true),
    table<&Manifest::dlopen>("dlopen"),
    entries<&Manifest::configs>("config"),
    entries<&Manifest::volumes>("volume"),
    entries<&Manifest::sockets>("socket"),
    table<&Manifest::service>("service", true),
    table<&Manifest::sandbox>("sandbox"),
    table<&Manifest::check>("check"),
    table<&Manifest::refresh>("refresh"),
};

constexpr std::array<Field<Plugins>, 6> plugins_table = {
    text<&Plugins::syntax, PlainName>("syntax", true),
    one_or_many<&Plugins::config, AbsolutePath>("config", true),
    text<&Plugins::object, Library>("library", true),
    set_of<&Plugins::builtin, Text>("builtin"),
    set_of<&Plugins::used_in, AbsolutePath>("used_in"),
    set_of<&Plugins::notes, Text>("notes"),
};

constexpr std::array<Field<Probe>, 2> probe_table = {
    text<&Probe::name, Text>("name", true),
    command<&Probe::run>("run", true),
};

constexpr std::array<Field<Bundle>, 13> bundle_table = {
    version<Bundle>(),
    text<&Bundle::description, Text>("description", true),
    set_of<&Bundle::imports, Symbol>("imports"),
    set_of<&Bundle::offers, Symbol>("offers"),
    set_of<&Bundle::binaries, AbsolutePath>("binaries"),
    set_of<&Bundle::libraries, Library>("libraries"),
    entries<&Bundle::files>("files"),
    set_of<&Bundle::optional_files, AbsolutePath>("optional_files"),
    set_of<&Bundle::directories, AbsolutePath>("directories"),
    set_of<&Bundle::devices, DevicePath>("devices"),
    entries<&Bundle::plugins>("plugins"),
    entries<&Bundle::probes>("probe"),
    set_of<&Bundle::ignore, Pattern>("ignore"),
};

constexpr std::array<Field<SyscallGroupFile>, 4> syscall_group_table = {
    version<SyscallGroupFile>(),
    text<&SyscallGroupFile::description, Text>("description", true),
    set_of<&SyscallGroupFile::calls, SyscallName>("calls"),
    set_of<&SyscallGroupFile::include, SyscallGroup>("include"),
};

void add_paths(const Key& key, const std::string& prefix, std::vector<std::string>& out) {
  for (const Key& child : key.children) {
    const std::string path = prefix + std::string(child.name) + (child.merge == Merge::entries ? "[]" : "");
    out.push_back(path);
    add_paths(child, path + ".", out);
  }
}

}  // namespace

// clang-format off
template <> std::span<const Field<File>> fields<File>() { return file_table; }
template <> std::span<const Field<Tree>> fields<Tree>() { return tree_table; }
template <> std::span<const Field<Dlopen>> fields<Dlopen>() { return dlopen_table; }
template <> std::span<const Field<Config>> fields<Config>() { return config_table; }
template <> std::span<const Field<Plugins>> fields<Plugins>() { return plugins_table; }
template <> std::span<const Field<Probe>> fields<Probe>() { return probe_table; }
template <> std::span<const Field<VolumeDirectory>> fields<VolumeDirectory>() { return volume_directory_table; }
template <> std::span<const Field<Volume>> fields<Volume>() { return volume_table; }
template <> std::span<const Field<Socket>> fields<Socket>() { return socket_table; }
template <> std::span<const Field<Restart>> fields<Restart>() { return restart_table; }
template <> std::span<const Field<Stop>> fields<Stop>() { return stop_table; }
template <> std::span<const Field<Service>> fields<Service>() { return service_table; }
template <> std::span<const Field<Limits>> fields<Limits>() { return limits_table; }
template <> std::span<const Field<Sandbox>> fields<Sandbox>() { return sandbox_table; }
template <> std::span<const Field<Check>> fields<Check>() { return check_table; }
template <> std::span<const Field<Refresh>> fields<Refresh>() { return refresh_table; }

template <> std::vector<std::string_view> identity_keys<File>() { return {"to"}; }
template <> std::vector<std::string_view> identity_keys<Config>() { return {"to", "from"}; }
template <> std::vector<std::string_view> identity_keys<VolumeDirectory>() { return {"path"}; }
template <> std::vector<std::string_view> identity_keys<Plugins>() { return {"syntax"}; }
template <> std::vector<std::string_view> identity_keys<Probe>() { return {"name"}; }
template <> std::vector<std::string_view> identity_keys<Volume>() { return {"name"}; }
template <> std::vector<std::string_view> identity_keys<Socket>() { return {"name"}; }
// clang-format on

Key manifest_keys() {
  Key root{"", Merge::fields, true, {}, {}, describe<Manifest>(manifest_table)};
  return root;
}

std::vector<std::string> key_paths() {
  std::vector<std::string> paths;
  add_paths(manifest_keys(), "", paths);
  std::sort(paths.begin(), paths.end());
  return paths;
}

void bind_manifest(Binder& binder, Manifest& manifest, const Value& root) {
  bind_table<Manifest>(binder, manifest, root, manifest_table, "the top level");
}

void bind_bundle(Binder& binder, Bundle& bundle, const Value& root) {
  bind_table<Bundle>(binder, bundle, root, bundle_table, "the bundle");
}

void bind_syscall_group(Binder& binder, SyscallGroupFile& group, const Value& root) {
  bind_table<SyscallGroupFile>(binder, group, root, syscall_group_table, "the syscall group");
}

void fill_defaults(Manifest& manifest) {
  if (manifest.tree.devices.empty() && !manifest.origins.contains("tree.devices"))
    manifest.tree.devices.assign(default_devices.begin(), default_devices.end());
  if (manifest.sandbox.syscalls.empty() && !manifest.origins.contains("sandbox.syscalls"))
    manifest.sandbox.syscalls.assign(default_syscalls.begin(), default_syscalls.end());
  if (manifest.service.ready.empty()) manifest.service.ready = {"started"};
  if (!manifest.sandbox.limits.core) manifest.sandbox.limits.core = 0;
  for (Config& config : manifest.configs)
    if (config.to.empty()) config.to = config.from;
  if (manifest.sandbox.hostname.empty()) {
    manifest.sandbox.hostname = manifest.name;
    std::replace(manifest.sandbox.hostname.begin(), manifest.sandbox.hostname.end(), '@', '-');
  }
}

Json show(const Manifest& manifest) {
  return show_table<Manifest>(manifest, manifest_table);
}

}  // namespace jail::manifest
