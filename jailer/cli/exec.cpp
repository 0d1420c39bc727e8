// jail exec NAME -- COMMAND...: a program of the jail's tree, in the running jail, as the daemon; or a
// program of the host, as the caller, that finds the jail's files where the jail has them.
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "jailer/cli/child.h"
#include "jailer/cli/services.h"
#include "jailer/cli/verbs.h"
#include "supervisor/base/quote.h"
#include "supervisor/control/client.h"
#include "supervisor/sandbox/host_view.h"
#include "supervisor/sandbox/join.h"

namespace jail::cli {
namespace {

constexpr int exit_ours = 125;
constexpr int exit_not_executable = 126;
constexpr int exit_not_found = 127;
constexpr std::string_view usual_path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

struct Options {
  std::string name;
  std::vector<std::string> command;  ///< what stood behind --
  bool tree = false;
  bool host = false;
};

/// A jail that runs, and all that is known of it.
struct Target {
  std::string name;
  generation::Opened generation;
  sandbox::Prepared prepared;
  sandbox::Running running;
};

int report_ours(const Error& error, int status = exit_ours) {
  (void)report(error);
  return status;
}

Result<control::ServiceStatus> status_of(const Instance& instance, const std::string& name) {
  JAIL_TRY(answer, control::ask(instance, {"status", {name}, true}));
  for (const control::Outcome& outcome : answer.outcomes)
    if (outcome.exit != 0)
      return with_hint(fail(static_cast<Exit>(outcome.exit), "{}", escape(outcome.message)),
                       escape(outcome.hint));
  if (answer.services.size() != 1) return fail(Exit::internal, "jaild does not say how {} is", name);
  return std::move(answer.services.front());
}

Result<control::ServiceStatus> running_status(const Instance& instance, const std::string& name) {
  JAIL_TRY(status, status_of(instance, name));
  if (status.pid <= 1)
    return with_hint(fail(Exit::unavailable, "{} does not run: it is {}", name, escape(status.state)),
                     fmt::format("start it: jail start {}", name));
  return std::move(status);
}

/// A pid is a name that is given anew. jaild is asked again once the process is held: if it is still the
/// service's then, and alive after that, it is the one that we hold.
Result<Target> find(const Instance& instance, const std::string& name) {
  JAIL_TRY(before, running_status(instance, name));
  JAIL_TRY(process, sandbox::open_process(before.pid));
  JAIL_TRY(after, running_status(instance, name));
  if (after.pid != before.pid || after.generation != before.generation || !sandbox::alive(process.get()))
    return with_hint(fail(Exit::unavailable, "{} has just been started anew", name), "try again");
  JAIL_TRY(generation, generation::open_number(instance, name, after.generation));
  JAIL_TRY(running, sandbox::look_at(std::move(process), after.pid, generation));
  JAIL_TRY(prepared, sandbox::Prepared::prepare(generation));
  return Target{name, std::move(generation), std::move(prepared), std::move(running)};
}

bool is_program(int dir, const std::string& path, std::uint64_t resolve) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = resolve;
  const UniqueFd fd(static_cast<int>(::syscall(SYS_openat2, dir, path.c_str(), &how, sizeof how)));
  struct stat status {};
  return fd && ::fstat(fd.get(), &status) == 0 && S_ISREG(status.st_mode) && (status.st_mode & 0111) != 0;
}

/// As execvp(3) looks: the first of the directories of `path` that has it. Empty: none.
std::string search(int root, const std::string& command, std::string_view path, std::uint64_t resolve) {
  if (command.find('/') != std::string::npos) return is_program(root, command, resolve) ? command : "";
  while (!path.empty()) {
    const std::size_t colon = path.find(':');
    const std::string candidate = std::string(path.substr(0, colon)) + "/" + command;
    if (candidate.front() == '/' && is_program(root, candidate, resolve)) return candidate;
    path.remove_prefix(colon == std::string_view::npos ? path.size() : colon + 1);
  }
  return "";
}

/// In the tree, as the jail's PATH says. Only an absolute path or a plain name can mean something there.
std::string find_in_tree(const Target& target, const std::string& command) {
  if (command.find('/') != std::string::npos && command.front() != '/') return "";
  const UniqueFd tree(
      ::openat(target.generation.dir.get(), generation::tree, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  std::string_view path = usual_path;
  for (const std::string& variable : target.prepared.spec().env)
    if (variable.starts_with("PATH=")) path = std::string_view(variable).substr(5);
  return search(tree.get(), command, path, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

std::string find_on_host(const std::string& command) {
  const char* path = std::getenv("PATH");
  return search(AT_FDCWD, command, path == nullptr ? usual_path : path, 0);
}

/// Of what a terminal can be called: nothing that a terminal library could take for a path.
std::vector<std::string> terminal_variable() {
  const char* term = std::getenv("TERM");
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || std::strchr("-+.", c) != nullptr;
  };
  const std::string_view text = term == nullptr ? "" : term;
  if (text.empty() || text.size() > 64 || text.front() == '.' ||
      !std::all_of(text.begin(), text.end(), plain))
    return {"TERM=dumb"};
  return {fmt::format("TERM={}", text)};
}

/// A descriptor that was closed would be given to something of ours.
Result<void> have_standard_descriptors() {
  for (int fd = 0; fd < 3; ++fd)
    if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", O_RDWR) != fd)
      return fail_errno(Exit::host, errno, "/dev/null");
  return {};
}

/// A directory is a way out of the jail for whoever gets at the descriptor.
Result<void> refuse_directories() {
  for (int fd = 0; fd < 3; ++fd) {
    struct stat status {};
    if (::fstat(fd, &status) != 0 || S_ISDIR(status.st_mode))
      return fail(Exit::usage, "descriptor {} is a directory: it would lead out of the jail", fd);
  }
  return {};
}

/// The caller's descriptors 0 to 2 go with it; where they are a terminal, a pseudoterminal does.
Result<int> run_in_tree(const Target& target, const Options& options, const std::string& program) {
  JAIL_CHECK(refuse_directories());
  JAIL_CHECK(sandbox::enter_pid_namespace(target.running));
  JAIL_TRY(signals, catch_signals());
  JAIL_TRY(terminal, Terminal::make());
  sandbox::JoinInputs inputs;
  inputs.program = program;
  inputs.argv = options.command;
  if (terminal) {
    inputs.terminal = true;
    inputs.env = terminal_variable();
    for (int fd = 0; fd < 3; ++fd) inputs.standard[fd] = terminal->standard(fd);
  }
  JAIL_TRY(joined, sandbox::join(target.prepared, target.running, inputs));
  if (terminal) terminal->started();
  const auto failure = sandbox::joined_failure(joined);
  JAIL_TRY(status, wait_for_end(joined.process.get(), signals.get(), Keyboard::apart,
                                terminal ? &*terminal : nullptr));
  if (!failure) return status;
  terminal.reset();  // ours is itself again before we speak
  const auto error = fail_errno(Exit::host, failure->error, "{}: {}", target.name, failure->step).value();
  if (!failure->exec) return report_ours(error);
  return report_ours(error, failure->error == ENOENT ? exit_not_found : exit_not_executable);
}

/// In the child: never returns.
[[noreturn]] void run_on_host(const Instance& instance, const Target& target, const Options& options,
                              const std::string& program, const UniqueFd& parent) {
  const auto stop = [](const Error& error, int status) { ::_exit(report_ours(error, status)); };
  // A child of a `jail exec` that was killed would be nobody's.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  pollfd end{parent.get(), POLLIN, 0};
  if (::poll(&end, 1, 0) != 0) ::_exit(exit_ours);
  const LaunchSpec& spec = target.prepared.spec();
  // A service without a network is reached by the sockets that it is passed, from the host's.
  if (spec.network != LaunchSpec::Network::host && spec.network != LaunchSpec::Network::none &&
      ::setns(target.running.process.get(), CLONE_NEWNET) != 0)
    stop(fail_errno(Exit::host, errno, "{}: cannot enter its network namespace", target.name).value(),
         exit_ours);
  const std::unique_ptr<char, void (*)(void*)> here(::getcwd(nullptr, 0), ::free);
  if (const auto shown = sandbox::show_jail(instance, spec); !shown) stop(shown.error(), exit_ours);
  // By its name: it may lie below a new mount.
  if ((!here || ::chdir(here.get()) != 0) && ::chdir("/") != 0)
    stop(fail(Exit::io, "chdir /").value(), exit_ours);
  ::syscall(SYS_close_range, 3U, ~0U, 0U);
  release_signals();
  std::vector<char*> argv;
  for (const std::string& word : options.command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  const int error = errno;
  stop(fail_errno(Exit::host, error, "{}", quote(program)).value(),
       error == ENOENT ? exit_not_found : exit_not_executable);
  ::_exit(exit_ours);
}

/// A child in the jail's pid namespace: a pid that it reads in a volume (dovecot's master.pid) means a
/// process of the jail, or none, and never one of the host.
Result<int> run_beside(const Instance& instance, const Target& target, const Options& options,
                       const std::string& program) {
  JAIL_CHECK(sandbox::enter_pid_namespace(target.running));
  JAIL_TRY(signals, catch_signals());
  const UniqueFd myself(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  if (!myself) return fail_errno(Exit::host, errno, "pidfd_open");
  int pidfd = -1;
  clone_args args{};
  args.flags = CLONE_PIDFD;
  args.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  const long pid = ::syscall(SYS_clone3, &args, sizeof args);
  if (pid < 0) return fail_errno(Exit::host, errno, "clone3");
  if (pid == 0) run_on_host(instance, target, options, program, myself);
  const UniqueFd process(pidfd);
  return wait_for_end(process.get(), signals.get(), Keyboard::shared, nullptr);
}

tl::unexpected<Error> nowhere(const Target& target, const Options& options) {
  const std::string command = quote(options.command.front());
  if (options.tree)
    return with_hint(
        fail(Exit::no_input, "{}: {} is not in its tree", target.name, command),
        "a program gets there by [tree] binaries, and a build; without --tree the host's is run");
  if (options.host) return fail(Exit::no_input, "{} is not on the host", command);
  return fail(Exit::no_input, "{}: {} is neither in its tree nor on the host", target.name, command);
}

int run(const Context& context, const Options& options) {
  if (auto there = have_standard_descriptors(); !there) return report_ours(there.error());
  const auto name = jail_name(options.name);
  if (!name) return report_ours(name.error());
  if (options.command.empty() || options.command.front().empty())
    return report_ours(fail(Exit::usage, "no command: jail exec {} -- COMMAND", *name).value());
  const auto target = find(context.instance, *name);
  if (!target) return report_ours(target.error());
  const std::string in_tree = options.host ? "" : find_in_tree(*target, options.command.front());
  const std::string on_host = options.tree || !in_tree.empty() ? "" : find_on_host(options.command.front());
  if (in_tree.empty() && on_host.empty())
    return report_ours(nowhere(*target, options).value(), exit_not_found);
  if (context.verbose)
    fmt::print(stderr, "{}: {} of {}\n", *name, in_tree.empty() ? on_host : in_tree,
               in_tree.empty() ? "the host" : "its tree");
  const auto status = in_tree.empty() ? run_beside(context.instance, *target, options, on_host)
                                      : run_in_tree(*target, options, in_tree);
  return status ? *status : report_ours(status.error());
}

}  // namespace

void add_exec(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "exec", "Run a command in a running jail, or beside it");
  auto options = std::make_shared<Options>();
  auto* tree = verb->add_flag("--tree", options->tree, "Only a program of the jail's tree");
  verb->add_flag("--host", options->host, "Only a program of the host")->excludes(tree);
  verb->add_option("name", options->name, "The jail (or its manifest)")->required();
  verb->footer("Behind the options: NAME -- COMMAND [ARGUMENTS...]");
  verb->callback([&context, options] {
    options->command = context.behind;
    context.run = [&context, options] { return run(context, *options); };
  });
}

}  // namespace jail::cli
