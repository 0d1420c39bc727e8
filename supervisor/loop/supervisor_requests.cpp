// Requests of the control socket, each answered when all of its names are done.
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <set>

#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/loop/supervisor.h"
#include "supervisor/spec/provides.h"

namespace jail::loop {
namespace {

using service::Action;
using service::Event;

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

void add_names(const std::string& path, std::set<std::string>& names) {
  const std::unique_ptr<DIR, CloseDir> dir(::opendir(path.c_str()));
  while (const dirent* entry = dir ? ::readdir(dir.get()) : nullptr)
    if (valid_name(entry->d_name)) names.insert(entry->d_name);
}

}  // namespace

void Supervisor::on_control() {
  for (const control::Incoming& incoming : server_->on_readable()) handle(incoming);
}

void Supervisor::handle(const control::Incoming& incoming) {
  const control::Request& request = incoming.request;
  journal_.log().debug("request of pid {}: {} {}", incoming.pid, escape(request.verb),
                       fmt::join(request.names, " "));
  using Handler = void (*)(Supervisor&, const control::Incoming&);
  struct Verb {
    const char* name;
    bool changes;  ///< not while we end
    Handler handler;
  };
  static constexpr Verb verbs[] = {
      {"start", true, [](Supervisor& s, const control::Incoming& i) { s.change(i, Event::Kind::start); }},
      {"stop", false, [](Supervisor& s, const control::Incoming& i) { s.change(i, Event::Kind::stop); }},
      {"restart", true, [](Supervisor& s, const control::Incoming& i) { s.change(i, Event::Kind::restart); }},
      {"reload", true, [](Supervisor& s, const control::Incoming& i) { s.change(i, Event::Kind::reload); }},
      {"check", true, [](Supervisor& s, const control::Incoming& i) { s.check(i); }},
      {"enable", false, [](Supervisor& s, const control::Incoming& i) { s.set_enabled(i, true); }},
      {"disable", false, [](Supervisor& s, const control::Incoming& i) { s.set_enabled(i, false); }},
      {"status", false, [](Supervisor& s, const control::Incoming& i) { s.status(i); }},
      {"ping", false,
       [](Supervisor& s, const control::Incoming& i) {
         Pending pending{i.client, {}, 0};
         s.finish(pending);
       }},
      {"shutdown", false,
       [](Supervisor& s, const control::Incoming& i) {
         s.shutdown_waiters_.push_back(std::make_shared<Pending>(Pending{i.client, {}, 0}));
         s.journal_.log().info("shutdown was asked for by pid {}", i.pid);
         s.begin_shutdown();
       }},
  };
  const auto* const verb =
      std::find_if(std::begin(verbs), std::end(verbs), [&](const Verb& v) { return request.verb == v.name; });
  control::Answer refusal;
  if (verb == std::end(verbs)) {
    refusal.exit = static_cast<int>(Exit::usage);
    refusal.message = fmt::format("jaild knows no verb {}", quote(request.verb));
  } else if (ending_ && verb->changes) {
    refusal.exit = static_cast<int>(Exit::busy);
    refusal.message = "jaild is stopping all services, and ends then";
  } else {
    verb->handler(*this, incoming);
    return;
  }
  server_->answer(incoming.client, refusal);
}

void Supervisor::change(const control::Incoming& incoming, Event::Kind kind) {
  const std::set<std::string> names(incoming.request.names.begin(), incoming.request.names.end());
  auto pending = std::make_shared<Pending>();
  pending->client = incoming.client;
  pending->open = names.size() + 1;  // ours: the answer goes out when all were begun
  for (const std::string& name : names) change_one(pending, name, kind, incoming.request.wait);
  if (--pending->open == 0) finish(*pending);
}

void Supervisor::change_one(const std::shared_ptr<Pending>& pending, const std::string& name,
                            Event::Kind kind, bool wait) {
  Waiter waiter{pending, pending->answer.outcomes.size()};
  pending->answer.outcomes.push_back({name, 0, {}, {}});
  auto found = find_unit(name);
  if (!found) return settle(waiter, found.error().exit, found.error().message, found.error().hint);
  if (const auto refusal = cannot_change(**found, kind))
    return settle(waiter, refusal->exit, refusal->message, refusal->hint);
  const bool checks = (*found)->check_config(
      kind, [=, this](const ConfigCheck::Outcome& outcome) { checked(waiter, name, kind, wait, outcome); });
  if (!checks) apply(waiter, name, kind, wait);
}

/// Its own program has looked at the configuration. Somebody may have stopped the service meanwhile, and with
/// it that program; that is not undone.
void Supervisor::checked(Waiter waiter, const std::string& name, Event::Kind kind, bool wait,
                         const ConfigCheck::Outcome& outcome) {
  const service::State state = unit(name).machine().state();
  if (state == service::State::stopped || state == service::State::stopping)
    return settle(waiter, Exit::busy, fmt::format("{}: it was stopped meanwhile", name), {});
  if (outcome.failure.empty())
    apply(waiter, name, kind, wait);
  else
    refuse(waiter, name, kind, outcome);
}

/// The request goes to the machine.
void Supervisor::apply(Waiter waiter, const std::string& name, Event::Kind kind, bool wait) {
  if (ending_ && kind != Event::Kind::stop)
    return settle(waiter, Exit::busy, "jaild is stopping all services, and ends then", {});
  if (const auto refusal = cannot_change(unit(name), kind))
    return settle(waiter, refusal->exit, refusal->message, refusal->hint);
  Waiters& waiters = waiters_[name];
  const bool reload = kind == Event::Kind::reload;
  if (reload)
    waiters.request = waiter;
  else if (wait)
    (kind == Event::Kind::stop ? waiters.down : waiters.up).push_back(waiter);
  unit(name).request(kind);
  if (reload && waiters.request) {  // not answered: it is a restart
    waiters.request.reset();
    if (wait) waiters.up.push_back(waiter);
  }
  if (!wait && !reload) settle(waiter, Exit::ok, {}, {});
}

/// What its own program would not accept is not tried: the service serves on.
void Supervisor::refuse(Waiter waiter, const std::string& name, Event::Kind kind,
                        const ConfigCheck::Outcome& outcome) {
  const char* verb = kind == Event::Kind::reload ? "reload" : "restart";
  journal_.log().warn("{}: {} refused, for its configuration is not accepted: {}", name, verb,
                      outcome.failure);
  waiter.pending->answer.outcomes.at(waiter.outcome).lines = outcome.lines;
  settle(waiter, Exit::config,
         fmt::format("{}: not done, for its configuration is not accepted ({}); it serves on as before", name,
                     outcome.failure),
         fmt::format("correct it, and again: jail {} {}", verb, name));
}

void Supervisor::on_answer(Unit& unit, const Action& action) {
  Waiters& waiters = waiters_[unit.name()];
  const std::string message =
      action.exit == Exit::ok ? "" : fmt::format("{}: {}", unit.name(), action.message);
  std::string hint;
  std::vector<Waiter> told;
  switch (action.kind) {
    case Action::Kind::answer_up:
      told = std::exchange(waiters.up, {});
      hint = fmt::format("see: jail status {0}; jail logs {0}", unit.name());
      break;
    case Action::Kind::answer_down:
      told = std::exchange(waiters.down, {});
      break;
    default:
      if (waiters.request) told.push_back(*std::exchange(waiters.request, std::nullopt));
      hint = fmt::format("run: jail restart {}", unit.name());
  }
  for (Waiter& waiter : told) settle(waiter, action.exit, message, action.exit == Exit::ok ? "" : hint);
}

void Supervisor::settle(Waiter& waiter, Exit exit, std::string message, std::string hint) {
  Pending& pending = *waiter.pending;
  control::Outcome& outcome = pending.answer.outcomes.at(waiter.outcome);
  outcome.exit = static_cast<int>(exit);
  outcome.message = std::move(message);
  outcome.hint = std::move(hint);
  pending.answer.exit = std::max(pending.answer.exit, outcome.exit);
  if (--pending.open == 0) finish(pending);
}

void Supervisor::finish(Pending& pending) {
  pending.answer.jaild_pid = ::getpid();
  pending.answer.keeper_pid = alone_ ? 0 : ::getppid();
  pending.answer.relay_pid = relay_ ? relay_->pid() : 0;
  save();  // what is answered is never forgotten
  server_->answer(pending.client, pending.answer);
}

Result<Unit*> Supervisor::find_unit(const std::string& name) {
  if (!valid_name(name)) return fail(Exit::usage, "{} cannot be the name of a jail", quote(name));
  const auto known = units_.find(name);
  if (known != units_.end()) return known->second.get();
  JAIL_CHECK(generation::open_current(options_.instance, name));
  return &unit(name);
}

Unit& Supervisor::unit(const std::string& name) {
  auto& slot = units_[name];
  if (!slot) {
    slot = std::make_unique<Unit>(house_, name);
    dirty_ = true;
  }
  return *slot;
}

/// Each is asked by its check, whatever else asks at the same time.
void Supervisor::check(const control::Incoming& incoming) {
  const std::set<std::string> names(incoming.request.names.begin(), incoming.request.names.end());
  auto pending = std::make_shared<Pending>();
  pending->client = incoming.client;
  pending->open = names.size() + 1;
  for (const std::string& name : names) {
    const Waiter waiter{pending, pending->answer.outcomes.size()};
    pending->answer.outcomes.push_back({name, 0, {}, {}});
    const auto done = [this, waiter, name](const std::string& failure) {
      Waiter told = waiter;
      if (failure.empty()) return settle(told, Exit::ok, {}, {});
      settle(told, Exit::answer_no, fmt::format("{}: the check fails: {}", name, failure),
             fmt::format("see: jail status {0}; jail logs {0}", name));
    };
    auto found = find_unit(name);
    Waiter refused = waiter;
    if (!found)
      settle(refused, found.error().exit, found.error().message, found.error().hint);
    else if (!(*found)->spec().check)
      settle(refused, Exit::config, fmt::format("{}: its manifest names no [check]", name), {});
    else
      (*found)->check_now(done);
  }
  if (--pending->open == 0) finish(*pending);
}

void Supervisor::set_enabled(const control::Incoming& incoming, bool enabled) {
  const std::string dir = options_.instance.enabled();
  Pending pending{incoming.client, {}, 0};
  for (const std::string& name : incoming.request.names) {
    control::Outcome outcome{name, 0, {}, {}};
    auto found = find_unit(name);
    const std::string path = dir + "/" + name;
    if (!found && (enabled || found.error().exit == Exit::usage)) {
      outcome = {name, static_cast<int>(found.error().exit), found.error().message, found.error().hint};
    } else if (const auto refusal = enabled ? excluded_by_enabled(options_.instance, name) : std::nullopt) {
      outcome = {name, static_cast<int>(refusal->exit), refusal->message, refusal->hint};
    } else if (enabled) {
      const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644));
      if (!fd)
        outcome = {
            name, static_cast<int>(Exit::io), fmt::format("{}: {}", path, ::strerrordesc_np(errno)), {}};
    } else if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
      outcome = {name, static_cast<int>(Exit::io), fmt::format("{}: {}", path, ::strerrordesc_np(errno)), {}};
    }
    pending.answer.exit = std::max(pending.answer.exit, outcome.exit);
    pending.answer.outcomes.push_back(std::move(outcome));
  }
  const UniqueFd fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd) ::fsync(fd.get());
  finish(pending);
}

std::vector<std::string> Supervisor::all_names() const {
  std::set<std::string> names;
  add_names(options_.instance.jails(), names);
  add_names(options_.instance.enabled(), names);
  for (const auto& [name, unit] : units_) names.insert(name);
  return {names.begin(), names.end()};
}

control::ServiceStatus Supervisor::status_of(const std::string& name) {
  control::ServiceStatus status;
  const auto known = units_.find(name);
  if (known != units_.end()) {
    status = known->second->status();
  } else {
    status.name = name;
    status.state = "stopped";
  }
  status.enabled = ::access((options_.instance.enabled() + "/" + name).c_str(), F_OK) == 0;
  if (const auto current = generation::open_current(options_.instance, name))
    status.current_generation = current->number;
  // Of what runs, or would.
  status.provides = status.pid != 0 ? known->second->spec().provides : provides_of(options_.instance, name);
  if (status.generation == 0) status.generation = status.current_generation;
  return status;
}

void Supervisor::status(const control::Incoming& incoming) {
  Pending pending{incoming.client, {}, 0};
  const bool all = incoming.request.names.empty();
  for (const std::string& name : all ? all_names() : incoming.request.names) {
    auto found = all ? Result<Unit*>(nullptr) : find_unit(name);
    if (!found) {
      const Error& error = found.error();
      pending.answer.exit = std::max(pending.answer.exit, static_cast<int>(error.exit));
      pending.answer.outcomes.push_back({name, static_cast<int>(error.exit), error.message, error.hint});
      continue;
    }
    auto status = status_of(name);
    if (all && status.current_generation == 0 && !units_.contains(name) && !status.enabled)
      continue;  // never built
    pending.answer.services.push_back(std::move(status));
  }
  finish(pending);
}

}  // namespace jail::loop
