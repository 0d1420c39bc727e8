// jail refresh [NAME...|--all|--automatic]: stale jails are built anew, their services changed over and put
// on trial; one that does not serve goes back to the generation before.
#include "jailer/refresh/refresh.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/generations.h"
#include "jailer/cli/plan_build.h"
#include "jailer/cli/services.h"
#include "jailer/cli/verbs.h"
#include "jailer/tree/state.h"
#include "supervisor/base/quote.h"
#include "supervisor/spec/generation.h"

namespace jail::cli {
namespace {

using Outcome = refresh::Report::Outcome;

struct Options {
  std::vector<std::string> names;
  bool all = false;
  bool automatic = false;
  bool dry_run = false;
  std::optional<double> grace;  ///< seconds
};

/// SIGINT and its like are read, from now on, where they do no harm.
class Interrupt {
 public:
  static Result<Interrupt> listen() {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&set, signal);
    if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return fail_errno(Exit::host, errno, "sigprocmask");
    UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd) return fail_errno(Exit::host, errno, "signalfd");
    return Interrupt(std::move(fd));
  }
  /// Can be read once one came, and stays so.
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] bool came() const {
    pollfd watched{fd_.get(), POLLIN, 0};
    return ::poll(&watched, 1, 0) > 0;
  }
  /// As shells say it: 128 and its number.
  [[nodiscard]] int status() const {
    signalfd_siginfo info{};
    const bool whole = ::read(fd_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info);
    return 128 + (whole ? static_cast<int>(info.ssi_signo) : SIGINT);
  }

 private:
  explicit Interrupt(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

/// Whether what a build would read is what the current generation was built from.
bool manifest_unchanged(const Context& context, const Planned& planned) {
  const auto opened = generation::open_current(context.instance, planned.plan.name);
  const auto built = opened.and_then(read_launch_spec);
  const auto now = launch_spec_from_json(planned.frozen.launch_json, generation::launch);
  return built && now && built->sources == now->sources;
}

/// Nothing: its policy leaves it to the admin.
Result<std::optional<refresh::Report>> refresh_one(const Context& context, const std::string& name,
                                                   const Options& options, int interrupt) {
  JAIL_TRY(planned, plan_build(context, name));
  if (options.automatic && !planned.manifest.refresh.automatic) return std::nullopt;
  if (options.automatic && !manifest_unchanged(context, planned))
    return with_hint(
        fail(Exit::answer_no, "{}: left alone, for its manifest has been edited since the build", name),
        fmt::format("run: jail build {0} && jail restart {0}", name));
  refresh::Options wanted;
  wanted.dry_run = options.dry_run;
  wanted.automatic = options.automatic;
  wanted.trial.interrupt = interrupt;
  if (options.grace)
    wanted.trial.grace = std::chrono::milliseconds(static_cast<std::int64_t>(*options.grace * 1000));
  JAIL_TRY(report, refresh::refresh(context.instance, planned.plan, planned.frozen, wanted));
  return std::optional(std::move(report));
}

std::string success(const refresh::Report& report) {
  switch (report.outcome) {
    case Outcome::fresh:
      return "as on the host";
    case Outcome::due:
      return report.runs
                 ? fmt::format("would be refreshed, and its service restarted (generation {} now)",
                               report.from)
                 : fmt::format("would be refreshed (generation {} now; it does not run)", report.from);
    case Outcome::built:
      return fmt::format(
          "generation {}, was {}; {}", report.to, report.from,
          report.supervised ? "it does not run" : "jaild is not running, nothing was restarted");
    default:
      return fmt::format("generation {} serves, was {}", report.to, report.from);
  }
}

bool is_failure(Outcome outcome) {
  return outcome == Outcome::rolled_back || outcome == Outcome::broken;
}

void print(const Context& context, const std::string& name, const refresh::Report& report, bool asked_for) {
  const bool quiet = context.quiet || (report.outcome == Outcome::fresh && !asked_for && !context.verbose);
  if (!quiet) {
    for (const std::string& line : refresh::in_words(report.diff)) fmt::print("{}: {}\n", name, line);
    if (!is_failure(report.outcome)) fmt::print("{}: {}\n", name, success(report));
  }
  if (!is_failure(report.outcome)) return;
  std::fflush(stdout);
  (void)cli::report(
      Error{Exit::answer_no,
            fmt::format("{}: generation {} does not serve: {}", name, report.to, escape(report.why)),
            {}});
  for (const std::string& line : report.lines) fmt::print(stderr, "      | {}\n", escape(line));
  fmt::print(stderr, "      {}\n      what changed: jail diff {} {} {}\n", escape(report.then), name,
             report.from, report.to);
}

const char* word_of(Outcome outcome) {
  static constexpr const char* words[] = {"fresh", "due", "built", "serves", "rolled_back", "broken"};
  return words[static_cast<std::size_t>(outcome)];
}

nlohmann::json as_json(const std::string& name, const refresh::Report& report) {
  return {{"name", name},        {"outcome", word_of(report.outcome)},
          {"from", report.from}, {"to", report.to},
          {"runs", report.runs}, {"changes", refresh::in_words(report.diff)},
          {"why", report.why},   {"lines", report.lines},
          {"then", report.then}};
}

Result<std::vector<std::string>> names_of(const Context& context, const Options& options) {
  JAIL_CHECK(tree::demand_root("refresh a jail"));
  if (options.all && !options.names.empty())
    return with_hint(fail(Exit::usage, "refresh: names, or --all"), "leave out one of them");
  if (!options.names.empty()) {
    for (const std::string& word : options.names) JAIL_CHECK(jail_name(word));
    return options.names;
  }
  if (!options.all && !options.automatic)
    return with_hint(fail(Exit::usage, "refresh: which jail?"),
                     "name it: jail refresh NAME; or all: jail refresh --all");
  return built_jails(context.instance);
}

/// Each name in turn; one that fails does not keep the others from being refreshed. The status is the last
/// failure's.
int run_refresh(const Context& context, const Options& options) {
  const auto names = names_of(context, options);
  if (!names) return report(names.error());
  const auto interrupt = Interrupt::listen();
  if (!interrupt) return report(interrupt.error());
  int status = 0;
  nlohmann::json jails = nlohmann::json::array();
  for (const std::string& word : *names) {
    if (interrupt->came()) break;
    const auto name = jail_name(word);
    const auto done = refresh_one(context, word, options, interrupt->fd());
    if (!done) {
      status = report(done.error());
      continue;
    }
    if (!*done) {
      if (!options.names.empty() || context.verbose)
        fmt::print(stderr, "{}: left to you: its manifest does not say [refresh] automatic = true\n", *name);
      continue;
    }
    if (is_failure((*done)->outcome)) status = static_cast<int>(Exit::answer_no);
    if (context.json)
      jails.push_back(as_json(*name, **done));
    else
      print(context, *name, **done, !options.names.empty());
  }
  if (context.json) print_json({{"version", 1}, {"jails", std::move(jails)}});
  return interrupt->came() ? interrupt->status() : status;
}

}  // namespace

void add_refresh(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "refresh",
                            "Rebuild stale jails, restart and check their services, roll back what fails");
  auto options = std::make_shared<Options>();
  verb->add_option("name", options->names, "The jails");
  verb->add_flag("--all", options->all, "All that are built");
  verb->add_flag("--automatic", options->automatic,
                 "Only those whose manifests say [refresh] automatic = true; for a timer");
  verb->add_option("--grace", options->grace, "So long each has to stay up before it counts as served")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.0, 3600.0));
  verb->add_flag("--dry-run", options->dry_run, "Only say what would be done");
  verb->callback(
      [&context, options] { context.run = [&context, options] { return run_refresh(context, *options); }; });
}

}  // namespace jail::cli
