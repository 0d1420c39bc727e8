// jail start, stop, restart, reload, enable, disable: one request to jaild each.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

#include "jailer/cli/services.h"
#include "jailer/cli/using.h"
#include "jailer/cli/verbs.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/control/client.h"
#include "supervisor/spec/generation.h"
#include "supervisor/spec/provides.h"

namespace jail::cli {
namespace {

struct Verb {
  const char* name;
  const char* description;
  const char* done;         ///< "named: started"
  const char* done_nowait;  ///< the same without waiting
  bool can_wait;            ///< has --no-wait
  const char* now;          ///< the verb that --now adds, or nullptr: has no --now
};
constexpr std::array verbs = {
    Verb{"start", "Start services, and wait until they are ready", "ready", "starting", true, nullptr},
    Verb{"stop", "Stop services, and wait until they are down", "stopped", "stopping", true, nullptr},
    Verb{"restart", "Restart services with their current generation", "ready", "restarting", true, nullptr},
    Verb{"reload", "Have services read their configuration again", "reloaded", "reloaded", false, nullptr},
    Verb{"enable", "Have jaild start services when it starts", "enabled", "enabled", false, "start"},
    Verb{"disable", "Have jaild leave services alone when it starts", "disabled", "disabled", false, "stop"},
};

struct Options {
  std::vector<std::string> names;
  std::vector<std::string> using_paths;
  bool no_wait = false;
  bool now = false;
};

void note(control::Answer& answer, const std::string& name, const Error& error) {
  const int exit = static_cast<int>(error.exit);
  answer.outcomes.push_back({name, exit, error.message, error.hint});
  answer.exit = std::max(answer.exit, exit);
}

// No jaild runs that could do it: STATE/enabled/NAME is what the next one reads.
Result<void> mark_enabled(const Instance& instance, const std::string& name, bool enabled) {
  if (enabled)
    JAIL_CHECK(generation::open_current(instance, name));  // a jail that was never built is refused
  if (auto refusal = enabled ? excluded_by_enabled(instance, name) : std::nullopt)
    return tl::unexpected(std::move(*refusal));
  JAIL_TRY(dir, make_dirs_at(AT_FDCWD, instance.enabled(), 0755));
  if (enabled) return replace_file_at(dir.get(), name, "", 0644, true);
  if (::unlinkat(dir.get(), name.c_str(), 0) != 0 && errno != ENOENT)
    return fail_errno(Exit::io, errno, "{}/{}: cannot remove", instance.enabled(), name);
  ::fsync(dir.get());
  return {};
}

control::Answer enable_without_jaild(const Instance& instance, const control::Request& request) {
  control::Answer answer;
  for (const std::string& name : request.names) {
    const auto marked = mark_enabled(instance, name, request.verb == "enable");
    if (!marked)
      note(answer, name, marked.error());
    else
      answer.outcomes.push_back({name, 0, "", ""});
  }
  return answer;
}

// "Not built" is the better answer to `jail start` than "jaild is not running": it comes first in any case.
Error unavailable(const Instance& instance, const control::Request& request, Error error) {
  if (request.verb != "start" && request.verb != "restart") return error;
  for (const std::string& name : request.names) {
    const auto opened = generation::open_current(instance, name);
    if (!opened && opened.error().exit == Exit::no_input) return opened.error();
  }
  return error;
}

Result<control::Answer> carry_out(const Instance& instance, const control::Request& request) {
  auto answer = control::ask(instance, request);
  if (answer || answer.error().exit != Exit::unavailable) return answer;
  if (request.verb == "enable" || request.verb == "disable") return enable_without_jaild(instance, request);
  return tl::unexpected(unavailable(instance, request, answer.error()));
}

/// Those that are named, and those that use what is named.
Result<std::vector<std::string>> all_names(const Instance& instance, const Options& options) {
  JAIL_TRY(names, jail_names(options.names));
  if (options.using_paths.empty()) return std::move(names);
  JAIL_TRY(users, services_using(instance, options.using_paths));
  for (const std::string& user : users)
    if (std::find(names.begin(), names.end(), user) == names.end()) names.push_back(user);
  return std::move(names);
}

int run_verb(const Context& context, const Verb& verb, const Options& options) {
  auto names = all_names(context.instance, options);
  if (!names) return report(names.error());
  if (names->empty() && options.using_paths.empty())
    return report(with_hint(fail(Exit::usage, "{}: which jail?", verb.name),
                            fmt::format("name it: jail {} NAME", verb.name))
                      .value());
  if (names->empty()) {
    if (!context.quiet)
      fmt::print(stderr, "no service that runs uses {}\n", fmt::join(options.using_paths, ", "));
    return 0;
  }
  control::Request request{verb.name, *names, !options.no_wait};
  const auto answer = carry_out(context.instance, request);
  if (!answer) return report(answer.error());
  if (!options.now || answer->exit != 0)
    return print_outcomes(context, *answer, options.no_wait ? verb.done_nowait : verb.done);
  // --now: what is enabled is started, what is disabled is stopped (a jaild that does not run has nothing to
  // stop).
  request.verb = verb.now;
  const auto then = control::ask(context.instance, request);
  const std::string both = fmt::format("{}, {}", verb.done, request.verb == "start" ? "ready" : "stopped");
  if (!then && then.error().exit == Exit::unavailable && request.verb == "stop")
    return print_outcomes(context, *answer, verb.done);
  if (!then) return report(then.error());
  return print_outcomes(context, *then, both);
}

void add(CLI::App& app, Context& context, const Verb& verb) {
  CLI::App* command = add_verb(app, context, verb.name, verb.description);
  auto options = std::make_shared<Options>();
  auto* names = command->add_option("name", options->names, "The jails (or their manifests)");
  if (std::string_view(verb.name) == "reload")
    command
        ->add_option("--using", options->using_paths,
                     "Those that run and show PATH as a configuration (may be repeated)")
        ->type_name("PATH")
        ->allow_extra_args(false);
  else
    names->required();
  if (verb.can_wait) command->add_flag("--no-wait", options->no_wait, "Return when jaild has begun");
  if (verb.now != nullptr) command->add_flag("--now", options->now, fmt::format("And {} them", verb.now));
  command->callback([&context, &verb, options] {
    context.run = [&context, &verb, options] { return run_verb(context, verb, *options); };
  });
}

}  // namespace

void add_start_stop(CLI::App& app, Context& context) {
  for (const Verb& verb : verbs) add(app, context, verb);
}

}  // namespace jail::cli
