#include "supervisor/sandbox/join.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>

#include <array>
#include <cerrno>

#include "supervisor/base/quote.h"
#include "supervisor/sandbox/join_after_fork.h"
#include "supervisor/sandbox/prepared.h"
#include "supervisor/sandbox/raw.h"
#include "supervisor/sandbox/record.h"

namespace jail::sandbox {
namespace {

constexpr std::uint64_t scope_abstract_sockets = 1;  // LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
constexpr std::string_view exec_prefix = "exec ";

/// fork(), into the service's cgroup where it has one.
long fork_into(const UniqueFd& cgroup, int& pidfd) {
  clone_args args{};
  args.flags = CLONE_PIDFD;
  args.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  if (cgroup) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<std::uint64_t>(cgroup.get());
  }
  return raw(SYS_clone3, &args, sizeof args);
}

}  // namespace

Result<void> enter_pid_namespace(const Running& running) {
  if (::setns(running.process.get(), CLONE_NEWPID) == 0) return {};
  if (errno == ESRCH) return with_hint(fail(Exit::unavailable, "its process has just ended"), "try again");
  return fail_errno(Exit::host, errno, "cannot join the jail's pid namespace");
}

Result<Joined> join(const Prepared& prepared, const Running& running, const JoinInputs& inputs) {
  const Prepared::Impl& impl = prepared.impl();
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) < 0) return fail_errno(Exit::host, errno, "cannot make a pipe");
  Joined joined;
  joined.status.reset(ends[0]);
  const UniqueFd childs_end(ends[1]);
  const UniqueFd myself(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  if (!myself) return fail_errno(Exit::host, errno, "pidfd_open");

  Texts texts;
  std::vector<const char*> argv;
  for (const std::string& word : inputs.argv) argv.push_back(texts.keep(word));
  argv.push_back(nullptr);
  std::vector<const char*> env = impl.env;
  for (const std::string& variable : inputs.env) env.push_back(texts.keep(variable));
  env.push_back(nullptr);

  JoinPlan plan;
  plan.plan = impl.plan;
  plan.plan.parent_fd = myself.get();
  plan.plan.landlock_scope &= scope_abstract_sockets;
  plan.process_fd = running.process.get();
  plan.namespaces = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | CLONE_NEWNET;
  plan.root_fd = running.root.get();
  plan.status_fd = childs_end.get();
  std::copy(std::begin(inputs.standard), std::end(inputs.standard), std::begin(plan.standard));
  plan.terminal = inputs.terminal;
  plan.exec_step = texts.keep(std::string(exec_prefix) + inputs.program);
  plan.program = texts.keep(inputs.program);
  plan.argv = argv.data();
  plan.envp = env.data();

  int pidfd = -1;
  const long pid = fork_into(running.cgroup, pidfd);
  if (pid == 0) run_joined(plan);
  if (pid < 0) return fail_errno(Exit::host, static_cast<int>(-pid), "clone3");
  joined.process.reset(pidfd);
  return joined;
}

std::optional<JoinFailure> joined_failure(const Joined& joined) {
  Record record;
  ssize_t length;
  do length = ::read(joined.status.get(), &record, sizeof record);
  while (length < 0 && errno == EINTR);
  if (length != static_cast<ssize_t>(sizeof record)) return std::nullopt;
  record.step[sizeof record.step - 1] = '\0';
  const std::string step = escape(record.step);
  return JoinFailure{step, record.error, step.starts_with(exec_prefix)};
}

}  // namespace jail::sandbox
