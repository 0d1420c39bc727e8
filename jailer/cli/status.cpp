// jail status: what jaild says about its services, and whether their manifests have been edited since they
// were built.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>

#include "jailer/cli/services.h"
#include "jailer/cli/verbs.h"
#include "jailer/tree/hash.h"
#include "jailer/tree/marks.h"
#include "supervisor/base/io.h"
#include "supervisor/control/client.h"
#include "supervisor/spec/generation.h"
#include "supervisor/spec/launch_spec.h"
#include "supervisor/spec/provides.h"

namespace jail::cli {
namespace {

using control::Answer;
using control::ServiceStatus;
using Clock = std::chrono::steady_clock;

constexpr std::size_t manifest_limit = std::size_t{4} << 20U;
constexpr std::chrono::milliseconds look_again{100};

struct Options {
  std::vector<std::string> names;
  double wait = 0;
};

// A manifest that is gone counts as edited; one that cannot be read is not known to be.
bool edited(const ManifestSource& source) {
  const auto text = read_file_at(AT_FDCWD, source.path, manifest_limit);
  if (!text) return text.error().exit == Exit::no_input;
  return sha256_hex(*text) != source.sha256;
}

bool edited_since_build(const Instance& instance, const std::string& name) {
  const auto opened = generation::open_current(instance, name);
  if (!opened) return false;
  const auto spec = read_launch_spec(*opened);
  return spec && std::any_of(spec->sources.begin(), spec->sources.end(), edited);
}

// Jails that are built and that jaild has nothing to say about: it has never been asked to start them.
void add_never_started(const Instance& instance, Answer& answer) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(instance.jails().c_str()), ::closedir);
  if (!dir) return;
  while (const dirent* entry = ::readdir(dir.get())) {
    const std::string name = static_cast<const char*>(entry->d_name);
    const bool known = std::any_of(answer.services.begin(), answer.services.end(),
                                   [&](const ServiceStatus& service) { return service.name == name; });
    if (known || !valid_name(name)) continue;
    const auto opened = generation::open_current(instance, name);
    if (!opened) continue;
    ServiceStatus service;
    service.name = name;
    service.state = "stopped";
    service.enabled = ::access((instance.enabled() + "/" + name).c_str(), F_OK) == 0;
    service.current_generation = opened->number;
    service.provides = provides_of(instance, name);
    answer.services.push_back(std::move(service));
  }
  std::sort(answer.services.begin(), answer.services.end(),
            [](const ServiceStatus& a, const ServiceStatus& b) { return a.name < b.name; });
}

bool settled(const ServiceStatus& service) {
  return service.state == "ready" || service.state == "stopped" || service.state == "failed";
}

// Asks until every service has come to rest or the time is over.
Result<Answer> ask_status(const Instance& instance, const std::vector<std::string>& names, double wait) {
  const auto until =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(wait));
  while (true) {
    JAIL_TRY(answer, control::ask(instance, {"status", names, true}));
    const bool done = std::all_of(answer.services.begin(), answer.services.end(), settled);
    if (done || Clock::now() >= until) return std::move(answer);
    std::this_thread::sleep_for(look_again);
  }
}

bool colorful() {
  const char* no_color = std::getenv("NO_COLOR");
  return ::isatty(STDOUT_FILENO) == 1 && (no_color == nullptr || *no_color == '\0');
}

int run_status(const Context& context, const Options& options) {
  auto names = jail_names(options.names);
  if (!names) return report(names.error());
  auto answer = ask_status(context.instance, *names, options.wait);
  if (!answer) return report(answer.error());
  if (names->empty()) add_never_started(context.instance, *answer);
  for (ServiceStatus& service : answer->services) {
    service.manifest_edited = edited_since_build(context.instance, service.name);
    service.stale = stale_reasons(context.instance, service.name);
    for (std::string& remark : refresh_remarks(context.instance, service.name))
      service.stale.push_back(std::move(remark));
  }
  if (context.json) {
    fmt::print("{}\n", control::to_json(*answer));
  } else {
    fmt::print("{}", status_text(*answer, {colorful(), context.verbose}));
    std::erase_if(answer->outcomes, [](const control::Outcome& outcome) { return outcome.exit == 0; });
    (void)print_outcomes(context, *answer, "");
  }
  if (answer->exit != 0) return answer->exit;
  const bool well = std::all_of(
      answer->services.begin(), answer->services.end(),
      [](const ServiceStatus& service) { return service.state == "ready" || service.state == "stopped"; });
  return static_cast<int>(well ? Exit::ok : Exit::answer_no);
}

}  // namespace

void add_status(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, context, "status", "Show services: state, uptime, restarts, and what is wrong");
  auto options = std::make_shared<Options>();
  verb->add_option("name", options->names, "The jails (or their manifests); all when none is named");
  verb->add_option("--wait", options->wait, "Wait so many seconds at most for what is starting or stopping")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.0, 86400.0));
  verb->callback(
      [&context, options] { context.run = [&context, options] { return run_status(context, *options); }; });
}

}  // namespace jail::cli
