// Services that provide the same name exclude each other, from the moment when one is wanted until its last
// process is gone. A request that would break this is refused and changes nothing; a start that nobody asked
// for (at boot, after a failure, with a new generation) ends in `failed`.
#include "supervisor/base/quote.h"
#include "supervisor/loop/supervisor.h"
#include "supervisor/spec/provides.h"

namespace jail::loop {
namespace {

using service::Event;
using service::State;

std::string_view doing(State state) {
  switch (state) {
    case State::starting:
      return "is starting";
    case State::ready:
      return "runs";
    case State::stopping:
      return "is stopping";
    default:
      return "is about to start again";
  }
}

}  // namespace

std::optional<Error> Supervisor::excluded(const std::string& name,
                                          const std::vector<std::string>& provides) const {
  for (const auto& [other, unit] : units_) {
    if (unit->machine().at_rest()) continue;
    if (const auto both = provided_by_both({name, provides}, {other, unit->spec().provides}))
      return Error{Exit::busy,
                   fmt::format("cannot run beside {}, which {}: both provide {}", other,
                               doing(unit->machine().state()), quote(*both)),
                   fmt::format("run: jail stop {}", other)};
  }
  return std::nullopt;
}

/// Before anything is done for a request that leads to a launch, by what the launch would run.
std::optional<Error> Supervisor::cannot_change(const Unit& unit, Event::Kind kind) const {
  const State state = unit.machine().state();
  const bool up = state == State::starting || state == State::ready;
  const bool launches = (kind == Event::Kind::start && !up) || kind == Event::Kind::restart ||
                        (kind == Event::Kind::reload && unit.spec().reload.how == Reload::How::restart);
  if (!launches) return std::nullopt;
  auto error = excluded(unit.name(), provides_of(options_.instance, unit.name()));
  if (error) error->message = unit.name() + ": " + error->message;
  return error;
}

}  // namespace jail::loop
