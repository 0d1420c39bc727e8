// launch() and read_report(): the parent's side of a launch.
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstring>

#include "supervisor/base/quote.h"
#include "supervisor/sandbox/network.h"
#include "supervisor/sandbox/prepared.h"
#include "supervisor/sandbox/raw.h"
#include "supervisor/sandbox/record.h"

namespace jail::sandbox {
namespace {

constexpr const char* log_target = "/dev/log";
constexpr const char* notify_target = "/run/systemd/notify";

/// What one launch adds to the plan, and the memory that it lies in.
struct Additions {
  Texts texts;
  std::vector<MountStep> mounts;
  std::vector<const char*> env;
  std::vector<int> sockets;
  std::string listen_pid;
  Plan plan;
};

void add_socket_mount(Additions& launch, const LaunchSpec& spec, const std::string& source,
                      const char* target) {
  MountStep step = bind_step(launch.texts, spec.mounts, source, target);
  step.socket = true;
  launch.mounts.push_back(step);
}

void add_sockets(Additions& launch, const LaunchInputs& inputs) {
  if (inputs.sockets.empty()) return;
  std::string names;
  for (const PassedSocket& socket : inputs.sockets) {
    launch.sockets.push_back(socket.fd);
    names += (names.empty() ? "" : ":") + socket.name;
  }
  launch.env.push_back(launch.texts.keep(fmt::format("LISTEN_FDS={}", inputs.sockets.size())));
  launch.env.push_back(launch.texts.keep("LISTEN_FDNAMES=" + names));
  const std::string_view key = "LISTEN_PID=";
  launch.listen_pid.assign(key.size() + 24, '\0');
  key.copy(launch.listen_pid.data(), key.size());
  launch.plan.listen_pid = launch.listen_pid.data() + key.size();
  launch.env.push_back(launch.listen_pid.data());
}

Result<void> check_inputs(const LaunchSpec& spec, const LaunchInputs& inputs) {
  if (inputs.stdout_fd < 0 || inputs.stderr_fd < 0 || inputs.init_fd < 0)
    return fail(Exit::internal, "launch: stdout_fd, stderr_fd and init_fd must be given");
  if (inputs.network_fd >= 0 && spec.network != LaunchSpec::Network::private_)
    return fail(Exit::internal, "launch: a network namespace for a service without one of its own");
  if (inputs.sockets.size() > max_sockets)
    return fail(Exit::config, "{} sockets to pass, {} at most", inputs.sockets.size(), max_sockets);
  return {};
}

void add_inputs(Additions& launch, const Prepared::Impl& impl, const LaunchInputs& inputs, int report) {
  launch.plan = impl.plan;
  Plan& plan = launch.plan;
  plan.report_fd = report;
  plan.init_fd = inputs.init_fd;
  plan.network_fd = inputs.network_fd;
  plan.stdout_fd = inputs.stdout_fd;
  plan.stderr_fd = inputs.stderr_fd;
  launch.mounts = impl.mounts;
  if (!inputs.log_socket.empty()) {
    add_socket_mount(launch, impl.spec, inputs.log_socket, log_target);
    for (const std::string& target : impl.spec.log_sockets)
      add_socket_mount(launch, impl.spec, inputs.log_socket, target.c_str());
  }
  launch.env = impl.env;
  if (!inputs.notify_socket.empty()) {
    add_socket_mount(launch, impl.spec, inputs.notify_socket, notify_target);
    launch.env.push_back(launch.texts.keep(std::string("NOTIFY_SOCKET=") + notify_target));
  }
  add_sockets(launch, inputs);
  launch.env.push_back(nullptr);
  plan.mounts = launch.mounts.data();
  plan.mount_count = launch.mounts.size();
  plan.socket_fds = launch.sockets.data();
  plan.socket_count = launch.sockets.size();
  plan.envp = launch.env.data();
}

/// fork() into new namespaces: the mount and cgroup ones follow in the child, once it has cloned the host's
/// mounts.
long clone_init(const Prepared::Impl& impl, const LaunchInputs& inputs, int& pidfd) {
  clone_args args{};
  args.flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
  using Network = LaunchSpec::Network;
  if (impl.spec.network == Network::none || (impl.spec.network == Network::private_ && inputs.network_fd < 0))
    args.flags |= CLONE_NEWNET;
  args.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  if (inputs.cgroup_fd >= 0) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<std::uint64_t>(inputs.cgroup_fd);
  }
  return raw(SYS_clone3, &args, sizeof args);
}

/// The pid of a pidfd in our own namespace, from /proc/self/fdinfo; -1: it has been reaped, or there is no
/// /proc.
pid_t pid_of(int pidfd) {
  const std::string path = fmt::format("/proc/self/fdinfo/{}", pidfd);
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 512> text{};
  const ssize_t length = file ? ::read(file.get(), text.data(), text.size()) : -1;
  if (length <= 0) return -1;
  const std::string_view lines(text.data(), static_cast<std::size_t>(length));
  const std::string_view key = "\nPid:\t";
  const std::size_t at = lines.find(key);
  pid_t pid = -1;
  if (at != std::string_view::npos)
    std::from_chars(lines.data() + at + key.size(), lines.data() + lines.size(), pid);
  return pid;
}

/// The descriptor that came with a message; more than one are closed.
UniqueFd received_descriptor(msghdr& message) {
  UniqueFd found;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
      found.reset(fd);
    }
  }
  return found;
}

}  // namespace

Result<Launched> launch(const Prepared& prepared, const LaunchInputs& inputs) {
  const Prepared::Impl& impl = prepared.impl();
  JAIL_CHECK(check_inputs(impl.spec, inputs));
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) < 0)
    return fail_errno(Exit::host, errno, "{}: no report channel", impl.spec.name);
  Launched launched;
  launched.report.reset(ends[0]);
  const UniqueFd childs_end(ends[1]);

  const UniqueFd myself(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  if (!myself) return fail_errno(Exit::host, errno, "{}: pidfd_open", impl.spec.name);

  Additions additions;
  add_inputs(additions, impl, inputs, childs_end.get());
  additions.plan.parent_fd = myself.get();
  UniqueFd network;
  if (impl.spec.network == LaunchSpec::Network::named) {
    JAIL_TRY(opened, open_named_network(impl.spec.network_name));
    network = std::move(opened);
    additions.plan.network_fd = network.get();
  }
  int pidfd = -1;
  const long pid = clone_init(impl, inputs, pidfd);
  if (pid == 0) run_init(additions.plan);
  if (pid < 0) return fail_errno(Exit::host, static_cast<int>(-pid), "{}: clone3", impl.spec.name);
  launched.init.reset(pidfd);
  launched.init_pid = static_cast<pid_t>(pid);
  return launched;
}

Result<std::optional<Report>> read_report(int report_fd) {
  Record record;
  iovec bytes{&record, sizeof record};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(4 * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t length;
  do length = ::recvmsg(report_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  while (length < 0 && errno == EINTR);
  if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return std::optional<Report>{};
  if (length < 0 && errno != ECONNRESET) return fail_errno(Exit::io, errno, "report channel");
  if (length <= 0) return fail(Exit::unavailable, "report channel: end of stream");
  UniqueFd attached = received_descriptor(message);
  if (length != static_cast<ssize_t>(sizeof record))
    return fail(Exit::io, "report channel: a record of {} bytes", length);

  Report report;
  switch (record.kind) {
    case Record::failed:
      record.step[sizeof record.step - 1] = '\0';
      report.kind = Report::Kind::failed;
      report.step = escape(record.step);
      report.error = record.error;
      return std::optional(std::move(report));
    case Record::running:
      if (!attached)
        return fail(Exit::io, "report channel: no descriptor of the daemon (out of descriptors?)");
      report.kind = Report::Kind::running;
      report.pid = pid_of(attached.get());
      report.daemon = std::move(attached);
      return std::optional(std::move(report));
    case Record::exited:
      report.kind = Report::Kind::exited;
      report.status = record.status;
      return std::optional(std::move(report));
    default:
      return fail(Exit::io, "report channel: a record of kind {}", record.kind);
  }
}

}  // namespace jail::sandbox
