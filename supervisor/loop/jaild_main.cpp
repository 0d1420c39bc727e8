// jaild: starts generations and keeps them running. Without the socket of a keeper it becomes the keeper's
// start.
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdio>
#include <cstdlib>

#include "supervisor/base/companion.h"
#include "supervisor/base/quote.h"
#include "supervisor/loop/supervisor.h"

namespace {

using namespace jail;

constexpr const char* usage =
    "usage: jaild [--home DIR] [--verbose]\n"
    "\n"
    "Runs the jails that `jail build` has made: starts those that are enabled, keeps them running, answers\n"
    "jail start, stop, restart, reload and status.\n"
    "\n"
    "  --home DIR   a whole instance below DIR (also JAIL_HOME); the system's own otherwise\n"
    "  --verbose    log each step\n"
    "  --help, --version\n"
    "\n"
    "SIGTERM and SIGINT stop all services and end jaild, SIGHUP opens its log again.\n";

struct Arguments {
  std::optional<std::string> home;
  bool verbose = false;
  int keeper_fd = -1;
};

int complain(const Error& error) {
  fmt::print(stderr, "jaild: {}\n", error.message);
  if (!error.hint.empty()) fmt::print(stderr, "jaild: {}\n", error.hint);
  return static_cast<int>(error.exit);
}

Result<int> small_number(std::string_view text) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 0)
    return fail(Exit::usage, "--keeper-fd: {} is no descriptor", quote(text));
  return value;
}

/// Nothing: the program has done what was asked (help, version).
Result<std::optional<Arguments>> read_arguments(int argc, char** argv) {
  static constexpr std::array<option, 6> options = {{{"home", required_argument, nullptr, 'd'},
                                                     {"verbose", no_argument, nullptr, 'v'},
                                                     {"keeper-fd", required_argument, nullptr, 'k'},
                                                     {"help", no_argument, nullptr, 'h'},
                                                     {"version", no_argument, nullptr, 'V'},
                                                     {nullptr, 0, nullptr, 0}}};
  Arguments arguments;
  ::opterr = 0;
  for (int key = 0; (key = ::getopt_long(argc, argv, "+vh", options.data(), nullptr)) != -1;) {
    switch (key) {
      case 'd':
        arguments.home = ::optarg;
        break;
      case 'v':
        arguments.verbose = true;
        break;
      case 'k': {
        JAIL_TRY(fd, small_number(::optarg));
        arguments.keeper_fd = fd;
        break;
      }
      case 'h':
        fmt::print("{}", usage);
        return std::nullopt;
      case 'V':
        fmt::print("jaild {}\n", JAIL_VERSION);
        return std::nullopt;
      default:
        return with_hint(
            fail(Exit::usage, "{} is no option of jaild", quote(argv[::optind > 1 ? ::optind - 1 : 1])),
            "see: jaild --help");
    }
  }
  if (::optind != argc)
    return with_hint(fail(Exit::usage, "unexpected argument {}", quote(argv[::optind])), "see: jaild --help");
  return arguments;
}

/// The keeper is what the user has started; it starts us again, with its socket.
Result<void> become_keeper(const std::string& program, const std::string& keeper, int argc, char** argv) {
  std::vector<char*> words{const_cast<char*>("jail-keeper"), const_cast<char*>(program.c_str())};
  for (int i = 1; i < argc; ++i) words.push_back(argv[i]);
  words.push_back(nullptr);
  ::execv(keeper.c_str(), words.data());
  return fail_errno(Exit::host, errno, "{}: cannot start", keeper);
}

Result<void> serve(const Arguments& arguments, int argc, char** argv) {
  if (::geteuid() != 0)
    return with_hint(fail(Exit::permission, "jaild needs root: it makes namespaces and changes identities"),
                     "run it with sudo, or as a service");
  JAIL_TRY(program, own_program());
  JAIL_TRY(keeper, companion(program, "jail-keeper"));
  if (arguments.keeper_fd < 0) return become_keeper(program, keeper, argc, argv);

  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  ::umask(022);
  ::signal(SIGPIPE, SIG_IGN);
  loop::SupervisorOptions options;
  JAIL_TRY(instance, find_instance(arguments.home, std::nullopt));
  options.instance = instance;
  options.keeper_program = keeper;
  options.command = {program};
  for (int i = 1; i < argc; ++i)
    if (!std::string_view(argv[i]).starts_with("--keeper-fd")) options.command.emplace_back(argv[i]);
  JAIL_TRY(init, open_companion(program, "jail-init"));
  options.init_program = std::move(init);
  JAIL_TRY(relay, open_companion(program, "jail-relay"));
  options.relay_program = std::move(relay);
  options.keeper_socket.reset(arguments.keeper_fd);
  options.verbose = arguments.verbose;
  JAIL_TRY(supervisor, loop::Supervisor::make(std::move(options)));
  return supervisor->run();
}

}  // namespace

int main(int argc, char** argv) {
  auto arguments = read_arguments(argc, argv);
  if (!arguments) return complain(arguments.error());
  if (!*arguments) return 0;
  auto served = serve(**arguments, argc, argv);
  return served ? 0 : complain(served.error());
}
