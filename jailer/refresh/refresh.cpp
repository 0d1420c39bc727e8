#include "jailer/refresh/refresh.h"

#include <poll.h>

#include <set>

#include "jailer/tree/marks.h"
#include "supervisor/base/quote.h"
#include "supervisor/spec/generation.h"

namespace jail::refresh {
namespace {

using Outcome = Report::Outcome;
using Kind = Verdict::Kind;

class Refresh {
 public:
  Refresh(const Instance& instance, const Plan& plan, const Frozen& frozen, const Options& options,
          RefreshLock lock)
      : instance_(instance),
        plan_(plan),
        frozen_(frozen),
        options_(options),
        name_(plan.name),
        lock_(std::move(lock)),
        note_(lock_.read()) {}

  Result<Report> run() {
    JAIL_TRY(current, generation::open_current(instance_, name_));
    JAIL_TRY(diff, preview(instance_, plan_, frozen_));
    report_.diff = std::move(diff);
    JAIL_CHECK(look_at_service());
    const bool unfinished = note_.from != 0 && note_.from != current.number && is_there(note_.from);
    const bool stale = !report_.diff.entries.empty();
    const bool behind = report_.runs && !options_.automatic && service_->generation != 0 &&
                        service_->generation != current.number;
    report_.from = unfinished                                       ? note_.from
                   : report_.runs && is_there(service_->generation) ? service_->generation
                                                                    : current.number;
    report_.to = current.number;
    if (!unfinished && !stale && !behind) return nothing_to_do();
    JAIL_CHECK(refuse_what_failed(stale));
    if (options_.dry_run) return done(Outcome::due);
    if (!unfinished) JAIL_CHECK(ask_before_anything_is_changed());
    report_.runs = report_.runs || (unfinished && note_.runs && service_ && service_->state == "failed");
    JAIL_CHECK(note(RefreshNote{report_.from, 0, report_.runs, note_.failed, note_.why}));
    if (stale) {
      if (unfinished) untried_ = current.number;
      JAIL_CHECK(build_it());
    }
    JAIL_TRY(opened, generation::open_number(instance_, name_, report_.to));
    JAIL_TRY(spec, read_launch_spec(opened));
    if (!report_.runs) return well(Outcome::built);
    return try_it(spec);
  }

 private:
  Report done(Outcome outcome) {
    report_.outcome = outcome;
    return std::move(report_);
  }

  Result<void> note(const RefreshNote& note) {
    JAIL_CHECK(lock_.write(note));
    note_ = note;
    return {};
  }

  [[nodiscard]] bool is_there(unsigned long number) const {
    return generation::open_number(instance_, name_, number).has_value();
  }

  /// One that is just being stopped or restarted is waited for.
  Result<void> look_at_service() {
    for (int look = 0; look < 600; ++look) {
      JAIL_TRY(service, status_of(instance_, name_));
      service_ = std::move(service);
      if (!service_ || service_->state != "stopping" || !pause()) break;
    }
    report_.supervised = service_.has_value();
    report_.runs = service_ && refresh::runs(*service_);
    return {};
  }

  [[nodiscard]] bool pause() const {
    pollfd watched{options_.trial.interrupt, POLLIN, 0};
    return ::poll(&watched, 1, 100) <= 0;
  }

  [[nodiscard]] bool told_to_stop() const {
    pollfd watched{options_.trial.interrupt, POLLIN, 0};
    return ::poll(&watched, 1, 0) > 0;
  }

  Result<Report> nothing_to_do() {
    if (options_.dry_run) return done(Outcome::fresh);
    JAIL_CHECK(clear_stale(instance_, name_));
    JAIL_CHECK(note(RefreshNote{0, 0, false, note_.failed, note_.why}));
    return done(Outcome::fresh);
  }

  /// Twice the same gives twice the same: a service is not restarted every hour for nothing.
  Result<void> refuse_what_failed(bool stale) {
    if (!options_.automatic || !stale || note_.failed == 0 || !is_there(note_.failed)) return {};
    JAIL_TRY(diff, preview(instance_, plan_, frozen_, note_.failed));
    if (!diff.empty()) return {};
    return with_hint(fail(Exit::answer_no, "{}: not tried again, for it has failed with these very files: {}",
                          name_, escape(note_.why)),
                     fmt::format("see what differs: jail diff {0} {1} {2}; to try again: jail refresh {0}",
                                 name_, report_.to, note_.failed));
  }

  /// What does not pass as it is cannot tell whether the new one serves, nor whether the old one does again.
  Result<void> ask_before_anything_is_changed() {
    if (!report_.runs || service_->state != "ready" || service_->check.empty()) return {};
    const std::string why = ask_before(instance_, name_, options_.trial.interrupt);
    if (why.empty() || told_to_stop()) return {};
    const bool named = why.starts_with(name_ + ": ");
    return with_hint(
        fail(Exit::answer_no, "{}: left as it is, for already now {}", name_,
             named ? why.substr(name_.size() + 2) : why),
        fmt::format("if the new files are to mend that: jail build {0} && jail restart {0}", name_));
  }

  Result<void> build_it() {
    auto built = build(instance_, plan_, frozen_);
    if (!built) {
      // Nothing has changed: what it was stale for, it still is.
      (void)mark_stale(instance_, name_, in_words(report_.diff));
      (void)note(RefreshNote{0, 0, false, note_.failed, note_.why});
      return tl::unexpected(std::move(built).error());
    }
    built_ = true;
    report_.to = built->generation;
    return note(RefreshNote{report_.from, report_.to, report_.runs, note_.failed, note_.why});
  }

  /// The end of a good one.
  Result<Report> well(Outcome outcome) {
    for (const unsigned long useless : {note_.failed, untried_})
      if (useless != 0) (void)remove_generation(instance_, name_, useless);
    // Where these cannot be written the next refresh asks once more, and that is all.
    (void)clear_stale(instance_, name_);
    (void)note(RefreshNote{});
    return done(outcome);
  }

  Result<Report> try_it(const LaunchSpec& spec) {
    const Verdict verdict = told_to_stop() ? Verdict{Kind::interrupted, "interrupted", {}}
                                           : put_on_trial(instance_, name_, report_.to, spec, options_.trial);
    if (verdict.kind == Kind::serves) return well(Outcome::serves);
    report_.why = verdict.why;
    report_.lines = verdict.lines;
    return go_back(verdict);
  }

  Result<Report> go_back(const Verdict& verdict) {
    const auto current = generation::open_current(instance_, name_);
    if (current && current->number != report_.to) {
      report_.then = fmt::format(
          "generation {} is the current one now, for somebody has changed that meanwhile", current->number);
      return failed(Outcome::broken, verdict);
    }
    const auto moved = rollback(instance_, name_, report_.from);
    if (!moved) {
      report_.then =
          fmt::format("generation {} stays the current one: {}", report_.to, moved.error().message);
      return failed(Outcome::broken, verdict);
    }
    if (verdict.kind == Kind::stopped) {
      report_.then = fmt::format("generation {} is current again, and not started", report_.from);
      return failed(Outcome::rolled_back, verdict);
    }
    if (verdict.kind == Kind::refused) {
      report_.then = fmt::format("generation {} serves on", report_.from);
      return failed(Outcome::rolled_back, verdict);
    }
    return serve_again(verdict);
  }

  /// The generation before must show that it serves, too: not interrupted, for nothing else is left to try.
  Result<Report> serve_again(const Verdict& verdict) {
    JAIL_TRY(opened, generation::open_number(instance_, name_, report_.from));
    JAIL_TRY(spec, read_launch_spec(opened));
    TrialOptions options = options_.trial;
    options.interrupt = -1;
    options.insist = true;
    const Verdict again = put_on_trial(instance_, name_, report_.from, spec, options);
    if (again.kind == Kind::serves) {
      report_.then = fmt::format("generation {} serves again", report_.from);
      return failed(Outcome::rolled_back, verdict);
    }
    report_.then =
        fmt::format("generation {} is current again, and does not serve either: {}", report_.from, again.why);
    return failed(Outcome::broken, verdict);
  }

  /// What was tried in vain stays for a look at it, the last one only.
  Result<Report> failed(Outcome outcome, const Verdict& verdict) {
    if (const auto diff = preview(instance_, plan_, frozen_); diff && !diff->entries.empty())
      (void)mark_stale(instance_, name_, in_words(*diff));
    const bool blamed = verdict.kind == Kind::fails || verdict.kind == Kind::refused;
    RefreshNote rest{0, 0, false, note_.failed, note_.why};
    std::set<unsigned long> useless{untried_};
    if (blamed) {
      useless.insert(note_.failed);
      rest.failed = report_.to;
      rest.why = report_.why;
    } else if (built_) {
      useless.insert(report_.to);
    }
    for (const unsigned long number : useless)
      if (number != 0 && number != rest.failed) (void)remove_generation(instance_, name_, number);
    (void)note(rest);  // from == current: nothing that could be gone on with
    return done(outcome);
  }

  const Instance& instance_;
  const Plan& plan_;
  const Frozen& frozen_;
  const Options& options_;
  const std::string& name_;
  RefreshLock lock_;
  RefreshNote note_;
  std::optional<control::ServiceStatus> service_;
  unsigned long untried_ = 0;  ///< built by a refresh that was interrupted, and stale by now
  bool built_ = false;
  Report report_;
};

}  // namespace

Result<Report> refresh(const Instance& instance, const Plan& plan, const Frozen& frozen,
                       const Options& options) {
  JAIL_TRY(lock, RefreshLock::take(instance, plan.name));
  return Refresh(instance, plan, frozen, options, std::move(lock)).run();
}

void forget(const Instance& instance, const std::string& name) {
  if (!has_notes(instance, name)) return;
  (void)clear_stale(instance, name);
  const auto lock = RefreshLock::take(instance, name);
  if (!lock) return;  // a refresh is at work, and finds out
  const RefreshNote note = lock->read();
  if (note.failed != 0) (void)remove_generation(instance, name, note.failed);
  (void)lock->write(RefreshNote{});
}

void give_over(const Instance& instance, const std::string& name) {
  const auto lock = RefreshLock::take(instance, name);
  if (!lock) return;
  const RefreshNote note = lock->read();
  (void)lock->write(RefreshNote{0, 0, false, note.failed, note.why});
}

}  // namespace jail::refresh
