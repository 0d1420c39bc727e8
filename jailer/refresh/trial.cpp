#include "jailer/refresh/trial.h"

#include <fmt/chrono.h>
#include <poll.h>

#include <algorithm>

#include "supervisor/control/client.h"

namespace jail::refresh {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;
using control::Answer;
using control::Outcome;
using control::ServiceStatus;
using Kind = Verdict::Kind;

constexpr auto look_again = 50ms;
constexpr auto check_again = 250ms;
constexpr milliseconds short_grace{3000};
constexpr auto last_words = 600ms;  ///< until what a daemon has said is in its log

/// Now, as lines of a log begin.
std::string log_stamp() {
  const auto now = std::chrono::system_clock::now();
  return fmt::format("{:%FT%T}", fmt::gmtime(std::chrono::system_clock::to_time_t(now)));
}

class Trial {
 public:
  Trial(const Instance& instance, const std::string& name, unsigned long number, const LaunchSpec& spec,
        const TrialOptions& options)
      : instance_(instance), name_(name), number_(number), spec_(spec), options_(options) {}

  Verdict run() {
    const auto before = look();
    const bool there = before && before->state == "ready" && before->generation == number_;
    if (!there)
      if (auto verdict = change_over()) return *verdict;
    // jaild has asked just now where readiness waits for the check.
    if (spec_.check && (there || !spec_.ready.check))
      if (auto verdict = check_passes()) return *verdict;
    return stays_up(options_.grace.value_or(spec_.check ? milliseconds(0) : short_grace));
  }

 private:
  [[nodiscard]] std::optional<ServiceStatus> look() const {
    return status_of(instance_, name_).value_or(std::nullopt);
  }

  /// For `time`, or until we are told to stop.
  bool pause(milliseconds time) const {
    pollfd watched{options_.interrupt, POLLIN, 0};
    return ::poll(&watched, 1, static_cast<int>(time.count())) <= 0;
  }

  /// The outcome of a request about our service; its exit is 0 where it is done.
  Outcome ask(const char* verb) const {
    const auto answer = control::ask(instance_, {verb, {name_}, true}, options_.interrupt);
    if (!answer) return {name_, static_cast<int>(answer.error().exit), answer.error().message, {}};
    if (answer->outcomes.empty()) return {name_, answer->exit, answer->message, {}};
    return answer->outcomes.front();
  }

  [[nodiscard]] bool told_to_stop() const {
    pollfd watched{options_.interrupt, POLLIN, 0};
    return ::poll(&watched, 1, 0) > 0;
  }

  /// Nothing when it is ready.
  std::optional<Verdict> change_over() {
    Outcome outcome = ask("restart");
    if (outcome.exit == 0) return std::nullopt;
    if (told_to_stop()) return Verdict{Kind::interrupted, "interrupted", {}};
    const auto now = look();
    if (now && now->state == "ready" && now->generation == number_) return std::nullopt;
    if (now && now->state == "ready") {
      if (!options_.insist) return Verdict{Kind::refused, without_name(outcome.message), outcome.lines};
      (void)ask("stop");
      outcome = ask("start");
      if (outcome.exit == 0) return std::nullopt;
    }
    if (outcome.exit == static_cast<int>(Exit::busy) && now && now->state == "stopped")
      return Verdict{Kind::stopped, outcome.message, {}};
    return fails(outcome.message);
  }

  std::optional<Verdict> check_passes() {
    const auto until = Clock::now() + 2 * spec_.check->timeout;
    while (true) {
      const Outcome outcome = ask("check");
      if (outcome.exit == 0) return std::nullopt;
      if (told_to_stop()) return Verdict{Kind::interrupted, "interrupted", {}};
      if (auto verdict = trouble()) return *verdict;
      if (Clock::now() >= until) return fails(outcome.message);
      (void)pause(check_again);
    }
  }

  Verdict stays_up(milliseconds grace) {
    const auto until = Clock::now() + grace;
    while (Clock::now() < until) {
      if (!pause(look_again)) return {Kind::interrupted, "interrupted", {}};
      if (auto verdict = trouble()) return *verdict;
    }
    return {Kind::serves, {}, {}};
  }

  /// What speaks against it since it was ready.
  std::optional<Verdict> trouble() {
    const auto now = look();
    if (!now) return fails("jaild does not answer any more");
    if (now->state == "ready" && now->restarts == 0) return std::nullopt;
    return fails(now->reason.empty() ? "it is " + now->state : now->reason);
  }

  [[nodiscard]] std::string without_name(std::string message) const {
    if (message.starts_with(name_ + ": ")) message.erase(0, name_.size() + 2);
    return message;
  }

  /// With the last lines of its log, which may take a moment to get there.
  Verdict fails(std::string why) const {
    Verdict verdict{Kind::fails, without_name(std::move(why)), {}};
    // There will be none.
    if (const auto next_try = verdict.why.find("; the next try is in "); next_try != std::string::npos)
      verdict.why.erase(next_try);
    const auto until = Clock::now() + last_words;
    do {
      const auto now = look();
      if (!now) break;
      for (const std::string& line : now->last_lines)
        if (line >= since_) verdict.lines.push_back(line);
    } while (verdict.lines.empty() && pause(look_again) && Clock::now() < until);
    return verdict;
  }

  const Instance& instance_;
  const std::string& name_;
  unsigned long number_;
  const LaunchSpec& spec_;
  const TrialOptions& options_;
  std::string since_ =
      log_stamp();  ///< what the log has from then on is the new one's, or its predecessor's last
};

}  // namespace

Result<std::optional<ServiceStatus>> status_of(const Instance& instance, const std::string& name) {
  auto answer = control::ask(instance, {"status", {name}, true});
  if (!answer && answer.error().exit == Exit::unavailable) return std::nullopt;
  if (!answer) return tl::unexpected(std::move(answer).error());
  if (answer->services.empty()) return std::nullopt;
  return std::optional(std::move(answer->services.front()));
}

std::string ask_before(const Instance& instance, const std::string& name, int interrupt) {
  const auto answer = control::ask(instance, {"check", {name}, true}, interrupt);
  if (!answer) return answer.error().message;
  return answer->outcomes.empty() ? answer->message : answer->outcomes.front().message;
}

bool runs(const ServiceStatus& service) {
  return service.state == "ready" || service.state == "starting" || service.state == "backoff";
}

Verdict put_on_trial(const Instance& instance, const std::string& name, unsigned long number,
                     const LaunchSpec& spec, const TrialOptions& options) {
  return Trial(instance, name, number, spec, options).run();
}

}  // namespace jail::refresh
