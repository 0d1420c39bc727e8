// jail probe NAME...: whether what is loaded at run time works in a built jail: each probe of its bundles, by
// jail-probe, in the jail's own tree and sandbox. 0: all do. 1: one does not.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/verbs.h"
#include "jailer/manifest/reader.h"
#include "jailer/tree/state.h"
#include "supervisor/base/companion.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/sandbox/sandbox.h"

namespace jail::cli {
namespace {

using manifest::FrozenProbe;
using std::chrono::steady_clock;

constexpr std::chrono::seconds patience{10};
constexpr std::size_t max_output = 4096;
constexpr std::size_t max_manifest = std::size_t{64} << 20U;

struct Outcome {
  FrozenProbe probe;
  bool works = false;
  std::string said;
};

/// What runs the probes.
struct Programs {
  std::string probe;
  UniqueFd init;
};

Result<Programs> find_programs() {
  JAIL_TRY(own, own_program());
  JAIL_TRY(probe, companion(own, "jail-probe"));
  JAIL_TRY(init, open_companion(own, "jail-init"));
  return Programs{std::move(probe), std::move(init)};
}

/// Those that the generation was built with; an older one has none.
Result<std::vector<FrozenProbe>> probes_of(const generation::Opened& opened) {
  JAIL_TRY(text, read_file_at(opened.dir.get(), generation::manifest, max_manifest, false));
  std::vector<FrozenProbe> probes;
  try {
    const auto manifest = nlohmann::json::parse(text);
    for (const auto& probe : manifest.value("probes", nlohmann::json::array()))
      probes.push_back({probe.at("bundle"), probe.at("name"), probe.at("run")});
  } catch (const nlohmann::json::exception&) {
    return with_hint(fail(Exit::manifest, "{}/{}: not as it was written", opened.path, generation::manifest),
                     "build the jail again: jail build --force");
  }
  return probes;
}

/// Reads until the end of the stream, or until the time is over: then false.
bool read_output(int fd, std::string& text) {
  const auto end = steady_clock::now() + patience;
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - steady_clock::now()).count();
    pollfd ready{fd, POLLIN, 0};
    if (left <= 0 || ::poll(&ready, 1, static_cast<int>(left)) == 0) return false;
    std::array<char, max_output> bytes{};
    const ssize_t got = ::read(fd, bytes.data(), bytes.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return true;
    if (text.size() < max_output) text.append(bytes.data(), static_cast<std::size_t>(got));
  }
}

/// How it ended, from the records of its launch; empty: well.
std::string verdict(int report_fd) {
  for (;;) {
    auto report = sandbox::read_report(report_fd);
    if (!report || !*report) return "it ended, and nobody knows how";
    if ((*report)->kind == sandbox::Report::Kind::failed)
      return fmt::format("{}: {}", (*report)->step, ::strerrordesc_np((*report)->error));
    if ((*report)->kind != sandbox::Report::Kind::exited) continue;
    const int status = (*report)->status;
    if (WIFSIGNALED(status)) return fmt::format("ended by {}", signal_name(WTERMSIG(status)));
    return WEXITSTATUS(status) == 0 ? std::string() : fmt::format("exit status {}", WEXITSTATUS(status));
  }
}

/// What it said, on one line and safe on a terminal; where that does not tell how it ended, that, too.
std::string in_words(std::string said, const std::string& failure) {
  while (!said.empty() && said.back() == '\n') said.pop_back();
  said = escape(said);
  if (failure.empty() || (!said.empty() && failure.starts_with("exit status"))) return said;
  return said.empty() ? failure : said + "; " + failure;
}

Result<Outcome> run_probe(const generation::Opened& opened, const Programs& programs,
                          const FrozenProbe& probe) {
  JAIL_TRY(prepared, sandbox::Prepared::prepare_probe(opened, programs.probe, probe.run));
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(Exit::host, errno, "cannot make a pipe");
  const UniqueFd output(ends[0]);
  UniqueFd write_end(ends[1]);
  sandbox::LaunchInputs inputs;
  inputs.stdout_fd = inputs.stderr_fd = write_end.get();
  inputs.init_fd = programs.init.get();
  JAIL_TRY(launched, sandbox::launch(prepared, inputs));
  write_end.reset();
  std::string said;
  const bool in_time = read_output(output.get(), said);
  if (!in_time) ::syscall(SYS_pidfd_send_signal, launched.init.get(), SIGKILL, nullptr, 0);
  siginfo_t info{};
  while (::waitid(P_PIDFD, static_cast<id_t>(launched.init.get()), &info, WEXITED) != 0 && errno == EINTR) {
  }
  const std::string failure =
      in_time ? verdict(launched.report.get()) : fmt::format("no result within {} s", patience.count());
  return Outcome{probe, failure.empty(), in_words(std::move(said), failure)};
}

Result<std::vector<Outcome>> probe_one(const Context& context, const std::string& name,
                                       const Programs& programs) {
  JAIL_TRY(opened, generation::open_current(context.instance, name));
  JAIL_TRY(probes, probes_of(opened));
  std::vector<Outcome> outcomes;
  for (const FrozenProbe& probe : probes) {
    JAIL_TRY(outcome, run_probe(opened, programs, probe));
    outcomes.push_back(std::move(outcome));
  }
  return outcomes;
}

void print(const Context& context, const std::string& name, const std::vector<Outcome>& outcomes) {
  if (outcomes.empty() && !context.quiet) fmt::print("{}: no probes\n", name);
  for (const Outcome& outcome : outcomes)
    if (!outcome.works || !context.quiet)
      fmt::print("{}: {} {}: {}: {}\n", name, outcome.works ? "works" : "FAILS", outcome.probe.bundle,
                 escape(outcome.probe.name), outcome.said);
}

nlohmann::json as_json(const std::string& name, const std::vector<Outcome>& outcomes) {
  nlohmann::json probes = nlohmann::json::array();
  bool all = true;
  for (const Outcome& outcome : outcomes) {
    all = all && outcome.works;
    probes.push_back({{"bundle", outcome.probe.bundle},
                      {"name", outcome.probe.name},
                      {"run", outcome.probe.run},
                      {"works", outcome.works},
                      {"said", outcome.said}});
  }
  return {{"name", name}, {"works", all}, {"probes", std::move(probes)}};
}

int run(const Context& context, const std::vector<std::string>& names) {
  if (auto root = tree::demand_root("probe a jail"); !root) return report(root.error());
  const auto programs = find_programs();
  if (!programs) return report(programs.error());
  int status = 0;
  nlohmann::json jails = nlohmann::json::array();
  for (const std::string& name_or_path : names) {
    const auto name = jail_name(name_or_path);
    const auto outcomes = name ? probe_one(context, *name, *programs) : tl::unexpected(name.error());
    if (!outcomes) {
      status = report(outcomes.error());
      continue;
    }
    for (const Outcome& outcome : *outcomes)
      if (!outcome.works && status == 0) status = static_cast<int>(Exit::answer_no);
    if (context.json)
      jails.push_back(as_json(*name, *outcomes));
    else
      print(context, *name, *outcomes);
  }
  if (context.json) print_json({{"version", 1}, {"jails", std::move(jails)}});
  return status;
}

}  // namespace

void add_probe(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, context, "probe", "Show in a built jail that what is loaded at run time works");
  auto names = std::make_shared<std::vector<std::string>>();
  verb->add_option("name", *names, "The jails")->required();
  verb->callback([&context, names] { context.run = [&context, names] { return run(context, *names); }; });
}

}  // namespace jail::cli
