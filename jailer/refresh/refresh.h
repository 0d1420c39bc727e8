// jail refresh: a stale jail is built anew, its service changed over and put on trial, and on failure all is
// as before. What happens when, and what a refresh that is killed there leaves:
//
//   note       {from}: what serves now            nothing has changed
//   build      current: from -> to                it runs in `from`; the next refresh goes on from here
//   restart    the service: from -> to            it runs in `to`, or jaild tries to have it; likewise
//   trial      ready, [check], stays up           likewise
//   end        the note is forgotten              done
//   or back    current: to -> from, restart       the next refresh finds `from` current: nothing to go on
//   with
//
// At any instant `current` is one of the two whole generations.
#pragma once

#include <string>
#include <vector>

#include "jailer/refresh/trial.h"
#include "jailer/tree/builder.h"
#include "supervisor/base/error.h"
#include "supervisor/spec/instance.h"

namespace jail::refresh {

struct Options {
  bool dry_run = false;    ///< only say what would be done
  bool automatic = false;  ///< nobody is watching: what failed before is not tried again as it was, what is
                           ///< not stale is left alone
  TrialOptions trial;
};

struct Report {
  enum class Outcome : std::uint8_t {
    fresh,        ///< nothing to do
    due,          ///< dry run: it would be refreshed
    built,        ///< there was no service to change over
    serves,       ///< in the new generation
    rolled_back,  ///< the new one does not do; the one before is current again
    broken,       ///< so, and the one before does not serve either, or could not be gone back to
  };
  Outcome outcome = Outcome::fresh;
  LockDiff diff;           ///< what made it stale
  unsigned long from = 0;  ///< generations
  unsigned long to = 0;
  bool supervised = false;         ///< a jaild runs
  bool runs = false;               ///< there is a service to change over
  std::string why;                 ///< of the last two: of the new generation
  std::vector<std::string> lines;  ///< what the daemon says of it
  std::string then;                ///< how it is now: "generation 1 serves again"
};

/// Refreshes the jail `plan.name`. An error where nothing was tried: another refresh is at work (Exit::busy),
/// the build fails, a try of the same files failed before.
[[nodiscard]] Result<Report> refresh(const Instance& instance, const Plan& plan, const Frozen& frozen,
                                     const Options& options);

/// Somebody has built by hand: it is stale no more, what an earlier refresh noted is forgotten, and the
/// generation that it tried in vain is removed.
void forget(const Instance& instance, const std::string& name);
/// Somebody has rolled back by hand: a refresh that was interrupted is not gone on with.
void give_over(const Instance& instance, const std::string& name);

/// By package, and by path what no package explains: "libssl3 3.0.11-1 -> 3.0.14-1", "/etc/hosts differs".
[[nodiscard]] std::vector<std::string> in_words(const LockDiff& diff);
/// Each path.
[[nodiscard]] std::vector<std::string> paths_in_words(const LockDiff& diff);

}  // namespace jail::refresh
