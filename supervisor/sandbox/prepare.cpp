// Prepared::prepare: everything about a generation that is the same for every launch.
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <limits>

#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/sandbox/features.h"
#include "supervisor/sandbox/prepared.h"
#include "supervisor/sandbox/raw.h"

namespace jail::sandbox {

namespace {

constexpr std::size_t max_filter_instructions = 4096;  // BPF_MAXINSNS
constexpr uid_t nobody = 65534;
constexpr unsigned highest_capability = 63;

/// Absolute, and of plain components only: nothing that could lead elsewhere.
bool plain_path(const std::string& path, bool absolute) {
  if (path.empty() || path.size() >= 4096 || path.find('\0') != std::string::npos) return false;
  std::string_view rest = path;
  if (absolute) {
    if (rest.front() != '/') return false;
    rest.remove_prefix(1);
  }
  while (!rest.empty()) {
    const std::size_t slash = rest.find('/');
    const std::string_view part = rest.substr(0, slash);
    if (part.empty() || part == "." || part == "..") return false;
    if (slash == std::string_view::npos) return true;
    rest.remove_prefix(slash + 1);
    if (rest.empty()) return false;  // a trailing slash
  }
  return false;  // empty, or "/" alone
}

bool below(const std::string& path, const std::string& directory) {
  return path.size() > directory.size() && path.starts_with(directory) && path[directory.size()] == '/';
}

/// The mount of `mounts` that `target` lies on: the last one that is above it; none: the tree itself.
const Mount* mount_above(const std::vector<Mount>& mounts, std::size_t count, const std::string& target) {
  const Mount* found = nullptr;
  for (std::size_t i = 0; i < count; ++i)
    if (below(target, mounts[i].target)) found = &mounts[i];
  return found;
}

bool on_own_tmpfs(const std::vector<Mount>& mounts, const std::string& target) {
  const Mount* above = mount_above(mounts, mounts.size(), target);
  return above != nullptr && above->kind == Mount::Kind::tmpfs;
}

std::string relative(const std::string& absolute) {
  return absolute.substr(1);
}

/// On a tmpfs of ours the target is made where it is missing; in a tree or a volume it must be there.
void place(Texts& texts, const std::vector<Mount>& mounts, std::size_t count, const std::string& target,
           MountStep& step) {
  step.step = texts.keep("mount " + target);
  step.target = texts.keep(relative(target));
  const Mount* above = mount_above(mounts, count, target);
  if (above == nullptr) return;
  if (above->kind != Mount::Kind::tmpfs && above->kind != Mount::Kind::dev) return;
  step.make_target = true;
  step.make = texts.parents(relative(target), relative(above->target));
}

std::uint64_t attributes(const Mount& mount) {
  std::uint64_t set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
  if (!mount.exec) set |= MOUNT_ATTR_NOEXEC;
  return set;
}

const FsOption* tmpfs_options(Texts& texts, const Mount& mount) {
  const auto number = [&texts](const char* format, std::uint64_t value) {
    return texts.keep(fmt::format(fmt::runtime(format), value));
  };
  std::vector<FsOption> options{{"mode", number("{:o}", mount.mode & 07777)},
                                {"uid", number("{}", mount.uid)},
                                {"gid", number("{}", mount.gid)}};
  if (mount.size != 0) {
    // Inodes are memory, too, and not counted in the size.
    options.push_back({"size", number("{}", mount.size)});
    options.push_back({"nr_inodes", number("{}", std::max<std::uint64_t>(mount.size / 4096, 1024))});
  }
  return texts.keep(std::move(options));
}

const FsOption* dev_options(Texts& texts) {
  return texts.keep(std::vector<FsOption>{{"mode", "755"}, {"size", "65536"}, {"nr_inodes", "256"}});
}

/// The gid is of those who see in spite of hidepid: root's by default, so that a daemon of that group would
/// see the init. It must be a number that is nobody's, and yet one that the kernel takes.
const FsOption* proc_options(Texts& texts) {
  return texts.keep(
      std::vector<FsOption>{{"hidepid", "invisible"}, {"gid", "4294967294"}, {"subset", "pid"}});
}

Result<void> lay_out_mounts(Prepared::Impl& impl) {
  const std::vector<Mount>& mounts = impl.spec.mounts;
  const std::vector<std::string>& log_sockets = impl.spec.log_sockets;
  if (mounts.size() + log_sockets.size() + 2 > max_mounts)
    return fail(Exit::config, "mounts and log_sockets: {} of them, {} at most",
                mounts.size() + log_sockets.size(), max_mounts - 2);
  for (const std::string& target : log_sockets)
    if (!plain_path(target, true) || !on_own_tmpfs(mounts, target))
      return fail(Exit::config, "log_sockets: {} is not on a tmpfs of the jail", quote(target));
  for (std::size_t i = 0; i < mounts.size(); ++i) {
    const Mount& mount = mounts[i];
    if (!plain_path(mount.target, true))
      return fail(Exit::config, "mounts[{}].target: {} is not a plain absolute path", i, quote(mount.target));
    MountStep step;
    place(impl.texts, mounts, i, mount.target, step);
    step.attributes = attributes(mount);
    switch (mount.kind) {
      case Mount::Kind::bind:
        if (!plain_path(mount.source, true))
          return fail(Exit::config, "mounts[{}].source: {} is not a plain absolute path", i,
                      quote(mount.source));
        step.kind = MountStep::Kind::bind;
        step.source = impl.texts.keep(mount.source);
        step.optional = mount.optional;
        if (!mount.writable) step.attributes |= MOUNT_ATTR_RDONLY;
        break;
      case Mount::Kind::tmpfs:
        step.kind = MountStep::Kind::tmpfs;
        step.options = tmpfs_options(impl.texts, mount);
        step.seal = !mount.writable;
        break;
      case Mount::Kind::proc:
        step.kind = MountStep::Kind::proc;
        step.options = proc_options(impl.texts);
        step.attributes |= MOUNT_ATTR_NOEXEC;
        if (!mount.writable) step.attributes |= MOUNT_ATTR_RDONLY;
        break;
      case Mount::Kind::dev:
        step.kind = MountStep::Kind::dev;
        step.options = dev_options(impl.texts);
        step.attributes |= MOUNT_ATTR_NOEXEC;
        step.seal = true;
        break;
    }
    impl.mounts.push_back(step);
  }
  return {};
}

struct KnownDevice {
  const char* path;
  unsigned major, minor;
};
constexpr KnownDevice known_devices[] = {{"null", 1, 3},   {"zero", 1, 5},    {"full", 1, 7},
                                         {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};

Result<void> lay_out_devices(Prepared::Impl& impl) {
  const std::vector<Device>& devices = impl.spec.devices;
  if (devices.size() > max_devices)
    return fail(Exit::config, "devices: {} of them, {} at most", devices.size(), max_devices);
  for (std::size_t i = 0; i < devices.size(); ++i) {
    const std::string& path = devices[i].path;
    if (!plain_path(path, false))
      return fail(Exit::config, "devices[{}].path: {} is not a plain path below /dev", i, quote(path));
    DeviceStep step;
    step.step = impl.texts.keep("mount /dev/" + path);
    step.path = impl.texts.keep(path);
    step.tree_path = impl.texts.keep("dev/" + path);
    step.make = impl.texts.parents(path, "");
    for (const KnownDevice& known : known_devices)
      if (path == known.path) step.major = known.major, step.minor = known.minor;
    impl.devices.push_back(step);
  }
  return {};
}

struct Resource {
  const char* name;
  int number;
};
constexpr Resource resources[] = {
    {"as", RLIMIT_AS},           {"core", RLIMIT_CORE},         {"cpu", RLIMIT_CPU},
    {"data", RLIMIT_DATA},       {"fsize", RLIMIT_FSIZE},       {"locks", RLIMIT_LOCKS},
    {"memlock", RLIMIT_MEMLOCK}, {"msgqueue", RLIMIT_MSGQUEUE}, {"nice", RLIMIT_NICE},
    {"nofile", RLIMIT_NOFILE},   {"nproc", RLIMIT_NPROC},       {"rss", RLIMIT_RSS},
    {"rtprio", RLIMIT_RTPRIO},   {"rttime", RLIMIT_RTTIME},     {"sigpending", RLIMIT_SIGPENDING},
    {"stack", RLIMIT_STACK}};
static_assert(std::size(resources) == RLIM_NLIMITS);

Result<void> lay_out_limits(Prepared::Impl& impl) {
  for (std::size_t i = 0; i < impl.spec.rlimits.size(); ++i) {
    const Rlimit& limit = impl.spec.rlimits[i];
    const auto* known =
        std::find_if(std::begin(resources), std::end(resources),
                     [&limit](const Resource& resource) { return limit.resource == resource.name; });
    if (known == std::end(resources))
      return fail(Exit::config, "rlimits[{}].resource: {} is not known", i, quote(limit.resource));
    if (limit.soft > limit.hard) return fail(Exit::config, "rlimits[{}]: soft is above hard", i);
    std::uint64_t hard = limit.hard;
    rlimit own{};
    if (limit.at_most && ::getrlimit(static_cast<__rlimit_resource>(known->number), &own) == 0)
      hard = std::min<std::uint64_t>(hard, own.rlim_max);
    impl.rlimits.push_back(
        {impl.texts.keep("setrlimit " + limit.resource), known->number, std::min(limit.soft, hard), hard});
  }
  return {};
}

// <linux/landlock.h> of Debian 12 has none of it.
constexpr std::uint64_t net_bind_tcp = 1;
constexpr std::uint64_t net_connect_tcp = 2;

/// Port 0, any that is free, may always be bound to: so clients choose their own address, and a listen
/// without a bind does the same unasked. UDP has no such rules in any kernel.
void lay_out_ports(Prepared::Impl& impl, const Features& features) {
  const LaunchSpec& spec = impl.spec;
  if (!spec.restrict_ports) return;
  impl.not_enforced.emplace_back("ports of udp: no kernel can restrict them");
  if (features.landlock_abi < landlock_net_abi) return;
  impl.ports.push_back({net_bind_tcp, 0});
  for (const auto& [ports, access] : {std::pair(&spec.listen_ports, net_bind_tcp),
                                      {&spec.optional_ports, net_bind_tcp},
                                      {&spec.connect_ports, net_connect_tcp}})
    for (const Port& port : *ports)
      if (port.protocol == Port::Protocol::tcp) impl.ports.push_back({access, port.number});
  impl.plan.landlock_net = net_bind_tcp | net_connect_tcp;
  impl.plan.ports = impl.ports.data();
  impl.plan.port_count = impl.ports.size();
}

/// The highest capability that this kernel knows; more than it are none of ours to drop.
Result<unsigned> last_capability() {
  const UniqueFd fd(::open("/proc/sys/kernel/cap_last_cap", O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(Exit::host, errno, "/proc/sys/kernel/cap_last_cap");
  std::array<char, 16> text{};
  const ssize_t length = ::read(fd.get(), text.data(), text.size());
  unsigned last = 0;
  if (length <= 0 || std::from_chars(text.data(), text.data() + length, last).ec != std::errc{} ||
      last > highest_capability)
    return fail(Exit::host, "/proc/sys/kernel/cap_last_cap: not a capability's number");
  return last;
}

Result<void> lay_out_identity(Prepared::Impl& impl) {
  const Credentials& wanted = impl.spec.credentials;
  JAIL_TRY(last, last_capability());
  const std::uint64_t unknown = last >= highest_capability ? 0 : wanted.capabilities >> (last + 1);
  if (unknown != 0) return fail(Exit::host, "credentials.capabilities: one of them is not in this kernel");
  if (wanted.groups.size() > max_groups)
    return fail(Exit::config, "credentials.groups: {} at most", max_groups);
  constexpr std::uint32_t no_id = std::numeric_limits<std::uint32_t>::max();  // means "leave it" to setresuid
  if (wanted.uid == no_id || wanted.gid == no_id)
    return fail(Exit::config, "credentials: {} is not an id", no_id);
  impl.groups.assign(wanted.groups.begin(), wanted.groups.end());
  std::sort(impl.groups.begin(), impl.groups.end());
  impl.plan.daemon = {wanted.uid,         wanted.gid,          impl.groups.data(),
                      impl.groups.size(), wanted.capabilities, last};
  impl.plan.init = {nobody, nobody, nullptr, 0, 0, last};
  return {};
}

Result<void> check_text(const std::string& text, const char* key) {
  if (text.find('\0') != std::string::npos) return fail(Exit::config, "{}: has a NUL byte", key);
  return {};
}

Result<void> lay_out_command(Prepared::Impl& impl) {
  const LaunchSpec& spec = impl.spec;
  if (spec.argv.empty() || !plain_path(spec.argv.front(), true))
    return fail(Exit::config, "argv[0]: not a plain absolute path");
  if (spec.cwd.empty() || spec.cwd.front() != '/') return fail(Exit::config, "cwd: not an absolute path");
  JAIL_CHECK(check_text(spec.cwd, "cwd"));
  for (const std::string& argument : spec.argv) {
    JAIL_CHECK(check_text(argument, "argv"));
    impl.argv.push_back(impl.texts.keep(argument));
  }
  impl.argv.push_back(nullptr);
  for (const std::string& variable : spec.env) {
    JAIL_CHECK(check_text(variable, "env"));
    if (variable.find('=') == std::string::npos)
      return fail(Exit::config, "env: {} is not KEY=value", quote(variable));
    impl.env.push_back(impl.texts.keep(variable));
  }
  if (spec.hostname.size() > 64) return fail(Exit::config, "hostname: 64 bytes at most");
  if (spec.oom_score_adjust < -1000 || spec.oom_score_adjust > 1000)
    return fail(Exit::config, "oom_score_adjust: from -1000 to 1000");
  if (spec.nice < -20 || spec.nice > 19) return fail(Exit::config, "nice: from -20 to 19");
  return {};
}

Result<void> read_filter(Prepared::Impl& impl, const generation::Opened& opened) {
  JAIL_TRY(bytes, read_file_at(opened.dir.get(), generation::filter,
                               max_filter_instructions * sizeof(sock_filter) + 1, false));
  const std::size_t count = bytes.size() / sizeof(sock_filter);
  if (count == 0 || bytes.size() % sizeof(sock_filter) != 0 || count > max_filter_instructions)
    return with_hint(fail(Exit::config, "{}/{}: {} bytes are not a seccomp filter", opened.path,
                          generation::filter, bytes.size()),
                     "build the jail again");
  impl.filter.resize(count);
  std::memcpy(impl.filter.data(), bytes.data(), bytes.size());
  return {};
}

/// The daemon's stdin: a null device on a file system of its own, read-only, so that a root daemon that calls
/// fchmod on it reaches neither the host's node nor another jail's.
Result<UniqueFd> open_private_null() {
  const auto failed = [](long error) {
    return fail_errno(Exit::host, static_cast<int>(-error), "cannot make a null device for stdin");
  };
  const long context = raw(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
  if (context < 0) return failed(context);
  const UniqueFd context_fd(static_cast<int>(context));
  long result = raw(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0);
  if (result < 0) return failed(result);
  const long mount = raw(SYS_fsmount, context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
  if (mount < 0) return failed(mount);
  const UniqueFd mount_fd(static_cast<int>(mount));
  if (::mknodat(mount_fd.get(), "null", S_IFCHR | 0444, ::makedev(1, 3)) < 0) return failed(-errno);
  UniqueFd null(::openat(mount_fd.get(), "null", O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!null) return failed(-errno);
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_RDONLY;
  result = raw(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &attributes, sizeof attributes);
  if (result < 0) return failed(result);
  return null;
}

/// A tree whose own /dev or /proc is not a directory would lead the mounts elsewhere; said here in words, and
/// refused again by the steps themselves.
Result<void> check_tree(const Prepared::Impl& impl, const generation::Opened& opened) {
  struct stat status {};
  if (::fstat(impl.tree.get(), &status) < 0)
    return fail_errno(Exit::io, errno, "{}/{}", opened.path, generation::tree);
  if (status.st_uid != 0 || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return fail(Exit::config, "{}/{}: others than root may write to it", opened.path, generation::tree);
  for (const Mount& mount : impl.spec.mounts) {
    if (mount_above(impl.spec.mounts, impl.spec.mounts.size(), mount.target) != nullptr) continue;
    open_how how{};
    how.flags = O_PATH | O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    const long fd = raw(SYS_openat2, impl.tree.get(), relative(mount.target).c_str(), &how, sizeof how);
    if (fd < 0)
      return with_hint(fail_errno(Exit::config, static_cast<int>(-fd), "{}/{}: {} cannot be mounted on",
                                  opened.path, generation::tree, quote(mount.target)),
                       "the tree was changed since its build: build the jail again");
    ::close(static_cast<int>(fd));
  }
  return {};
}

/// For a command that is not the service: nothing to hear or reach, and nothing of the host to write to.
void seclude(LaunchSpec& spec) {
  spec.network = LaunchSpec::Network::none;
  spec.network_name.clear();
  spec.sockets.clear();
  spec.ready = {};
  for (Mount& mount : spec.mounts)
    if (mount.kind == Mount::Kind::bind) mount.writable = false;
}

void complete(Prepared::Impl& impl, const Features& features) {
  const LaunchSpec& spec = impl.spec;
  Plan& plan = impl.plan;
  impl.daemon_stack.resize(daemon_stack_size + 64);
  char* stack = impl.daemon_stack.data();
  plan.daemon_stack = stack + (64 - reinterpret_cast<std::uintptr_t>(stack) % 64) % 64;
  plan.tree_fd = impl.tree.get();
  plan.null_fd = impl.null.get();
  plan.devices = impl.devices.data();
  plan.device_count = impl.devices.size();
  plan.rlimits = impl.rlimits.data();
  plan.rlimit_count = impl.rlimits.size();
  const std::string hostname = spec.hostname.empty() ? spec.name.substr(0, 64) : spec.hostname;
  plan.hostname = impl.texts.keep(hostname);
  plan.hostname_length = hostname.size();
  plan.loopback_up = spec.network == LaunchSpec::Network::private_;
  const std::string score = std::to_string(spec.oom_score_adjust);
  plan.oom_score = impl.texts.keep(score);
  plan.oom_score_length = score.size();
  plan.nice = spec.nice;
  plan.umask = spec.credentials.umask & 0777;
  plan.cwd = impl.texts.keep(spec.cwd);
  plan.mdwe = spec.memory_deny_write_execute && features.mdwe;
  constexpr std::uint64_t abstract_sockets_and_signals = 3;
  plan.landlock_scope = features.landlock_abi >= landlock_scope_abi ? abstract_sockets_and_signals : 0;
  lay_out_ports(impl, features);
  plan.filter = impl.filter.data();
  plan.filter_length = static_cast<unsigned short>(impl.filter.size());
  plan.exec_step = impl.texts.keep("exec " + spec.argv.front());
  plan.argv = impl.argv.data();
}

}  // namespace

const char* const* Texts::parents(const std::string& path, const std::string& base) {
  std::vector<const char*> list;
  std::size_t slash = base.empty() ? path.find('/') : path.find('/', base.size() + 1);
  for (; slash != std::string::npos; slash = path.find('/', slash + 1))
    list.push_back(keep(path.substr(0, slash)));
  list.push_back(nullptr);
  return lists_.emplace_back(std::move(list)).data();
}

const FsOption* Texts::keep(std::vector<FsOption> options) {
  options.push_back({});
  return options_.emplace_back(std::move(options)).data();
}

MountStep bind_step(Texts& texts, const std::vector<Mount>& mounts, const std::string& source,
                    const std::string& target) {
  MountStep step;
  place(texts, mounts, mounts.size(), target, step);
  step.kind = MountStep::Kind::bind;
  step.source = texts.keep(source);
  step.attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY;
  return step;
}

Prepared::Prepared(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Prepared::Prepared(Prepared&&) noexcept = default;
Prepared& Prepared::operator=(Prepared&&) noexcept = default;
Prepared::~Prepared() = default;

const LaunchSpec& Prepared::spec() const {
  return impl_->spec;
}
const std::vector<std::string>& Prepared::not_enforced() const {
  return impl_->not_enforced;
}

Result<Prepared> Prepared::prepare(const generation::Opened& opened) {
  JAIL_TRY(spec, read_launch_spec(opened));
  return prepare(opened, std::move(spec));
}

Result<Prepared> Prepared::prepare_config_check(const generation::Opened& opened) {
  JAIL_TRY(spec, read_launch_spec(opened));
  spec.argv = spec.check_config;
  seclude(spec);
  return prepare(opened, std::move(spec));
}

Result<Prepared> Prepared::prepare_probe(const generation::Opened& opened, const std::string& program,
                                         const std::vector<std::string>& words) {
  JAIL_TRY(spec, read_launch_spec(opened));
  Mount shown;
  shown.source = program;
  shown.target = "/run/" + program.substr(program.rfind('/') + 1);
  shown.exec = true;
  spec.argv = {shown.target};
  spec.argv.insert(spec.argv.end(), words.begin(), words.end());
  spec.mounts.push_back(std::move(shown));
  spec.credentials.capabilities = 0;
  seclude(spec);
  return prepare(opened, std::move(spec));
}

Result<Prepared> Prepared::prepare(const generation::Opened& opened, LaunchSpec spec) {
  const std::string name = opened.path + "/" + generation::launch;
  auto impl = std::make_unique<Impl>();
  impl->spec = std::move(spec);
  const Features features = probe_extras();
  JAIL_TRY(missing, missing_features(impl->spec, features));
  impl->not_enforced = std::move(missing);

  const auto lay_out = [&]() -> Result<void> {
    JAIL_CHECK(lay_out_mounts(*impl));
    JAIL_CHECK(lay_out_devices(*impl));
    JAIL_CHECK(lay_out_limits(*impl));
    JAIL_CHECK(lay_out_identity(*impl));
    return lay_out_command(*impl);
  };
  if (auto done = lay_out(); !done) {
    done.error().message = name + ": " + done.error().message;
    return tl::unexpected(done.error());
  }
  JAIL_CHECK(read_filter(*impl, opened));
  impl->tree.reset(
      ::openat(opened.dir.get(), generation::tree, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!impl->tree) return fail_errno(Exit::config, errno, "{}/{}", opened.path, generation::tree);
  JAIL_CHECK(check_tree(*impl, opened));
  JAIL_TRY(null, open_private_null());
  impl->null = std::move(null);
  complete(*impl, features);
  return Prepared(std::move(impl));
}

}  // namespace jail::sandbox
