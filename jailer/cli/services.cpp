#include "jailer/cli/services.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "supervisor/base/quote.h"

namespace jail::cli {
namespace {

using control::Answer;
using control::Outcome;
using control::ServiceStatus;

enum Column { c_name, c_state, c_pid, c_uptime, c_restarts, c_generation, c_check, columns };
using Row = std::array<std::string, columns>;

const char* color_of(const std::string& state) {
  if (state == "ready") return "\x1b[32m";
  if (state == "failed") return "\x1b[1;31m";
  if (state == "stopped") return "";
  return "\x1b[33m";
}

Row row_of(const ServiceStatus& service) {
  Row row;
  const bool runs = service.pid != 0;
  row[c_name] = escape(service.name) + (service.enabled ? "" : " (disabled)");
  row[c_state] = escape(service.state);
  row[c_pid] = runs ? std::to_string(service.pid) : "-";
  row[c_uptime] = runs ? duration_text(service.uptime_ms) : "-";
  row[c_restarts] = std::to_string(service.restarts);
  row[c_generation] = service.generation != 0 ? std::to_string(service.generation) : "-";
  if (runs && service.current_generation != 0 && service.current_generation != service.generation)
    row[c_generation] += fmt::format(" of {}", service.current_generation);
  row[c_check] = !runs || service.check.empty() ? "-" : escape(service.check);
  return row;
}

// What is to be said about a service below its line.
std::vector<std::string> remarks(const ServiceStatus& service, bool verbose) {
  std::vector<std::string> lines;
  const bool troubled = service.state == "failed" || service.state == "backoff" ||
                        (service.state == "starting" && !service.last_lines.empty());
  const std::string reason = escape(service.reason);
  if (!reason.empty() && (troubled || verbose))
    lines.push_back(reason);
  else if (!reason.empty() && service.state == "ready" && service.restarts != 0)
    lines.push_back("last restart: " + reason);
  if (!service.check_failure.empty()) lines.push_back("the check fails: " + escape(service.check_failure));
  if (service.state == "backoff") lines.push_back("next start in " + duration_text(service.next_start_ms));
  if (!troubled && !service.last_lines.empty())
    lines.push_back("errors that it told of at its start, or when it was to reload or restart:");
  if (troubled || service.state == "ready")
    for (const std::string& line : service.last_lines) lines.push_back("| " + escape(line));
  const bool newer = service.pid != 0 && service.current_generation > service.generation;
  if (service.manifest_edited)
    lines.push_back(fmt::format("manifest edited since the build; run: jail build {}", escape(service.name)));
  else if (newer && verbose)
    lines.push_back(fmt::format("a newer generation is built; run: jail restart {}", escape(service.name)));
  if (!service.stale.empty()) {
    lines.push_back("not as on the host; run: jail refresh " + escape(service.name));
    const std::size_t shown = verbose ? service.stale.size() : std::min<std::size_t>(service.stale.size(), 4);
    for (std::size_t i = 0; i < shown; ++i) lines.push_back("| " + escape(service.stale[i]));
    if (shown < service.stale.size())
      lines.push_back(fmt::format("| and {} more", service.stale.size() - shown));
  }
  if (verbose && !service.provides.empty())
    lines.push_back("provides " + escape(fmt::format("{}", fmt::join(service.provides, ", "))));
  if (verbose)
    for (const std::string& item : service.not_enforced)
      lines.push_back("not enforced here: " + escape(item));
  return lines;
}

void append_row(std::string& out, const Row& row, const std::array<std::size_t, columns>& widths, bool color,
                bool heading) {
  for (std::size_t column = 0; column < columns; ++column) {
    const bool last = column + 1 == columns;
    const std::string text = last ? row[column] : fmt::format("{:<{}}", row[column], widths[column] + 2);
    const bool paint = color && column == c_state && !heading && *color_of(row[c_state]) != '\0';
    out += paint ? color_of(row[c_state]) + text + "\x1b[0m" : text;
  }
  out += '\n';
}

}  // namespace

Result<std::vector<std::string>> jail_names(const std::vector<std::string>& words) {
  std::vector<std::string> names;
  for (const std::string& word : words) {
    JAIL_TRY(name, jail_name(word));
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

int print_outcomes(const Context& context, const Answer& answer, const std::string& done) {
  if (context.json) {
    fmt::print("{}\n", control::to_json(answer));
    return answer.exit;
  }
  if (!answer.message.empty())
    (void)report(Error{static_cast<Exit>(answer.exit), escape(answer.message), escape(answer.hint)});
  for (const Outcome& outcome : answer.outcomes) {
    const std::string name = escape(outcome.name);
    if (outcome.exit == 0) {
      if (!context.quiet)
        fmt::print(stderr, "{}: {}\n", name, outcome.message.empty() ? done : escape(outcome.message));
      continue;
    }
    // jaild's messages name the jail as ours do: "named: mount /dev/null: Operation not permitted".
    const std::string message = escape(outcome.message);
    const bool named = message.starts_with(name + ":");
    (void)report(Error{static_cast<Exit>(outcome.exit), named ? message : name + ": " + message,
                       escape(outcome.hint)});
    for (const std::string& line : outcome.lines) fmt::print(stderr, "      | {}\n", escape(line));
  }
  return answer.exit;
}

std::string duration_text(std::uint64_t milliseconds) {
  const std::uint64_t seconds = milliseconds / 1000;
  if (milliseconds < 1000) return fmt::format("{}ms", milliseconds);
  if (seconds < 60) return fmt::format("{}s", seconds);
  if (seconds < 3600) return fmt::format("{}m{:02}s", seconds / 60, seconds % 60);
  if (seconds < 86400) return fmt::format("{}h{:02}m", seconds / 3600, seconds / 60 % 60);
  return fmt::format("{}d{:02}h", seconds / 86400, seconds / 3600 % 24);
}

std::string status_text(const Answer& answer, Screen screen) {
  std::string out;
  if (screen.verbose) {
    auto pid = [](int number) { return number == 0 ? std::string("none") : std::to_string(number); };
    out += fmt::format("jaild {}, keeper {}, relay {}\n", pid(answer.jaild_pid), pid(answer.keeper_pid),
                       pid(answer.relay_pid));
  }
  if (answer.services.empty()) return out;
  std::vector<Row> rows{{"NAME", "STATE", "PID", "UPTIME", "RESTARTS", "GENERATION", "CHECK"}};
  std::transform(answer.services.begin(), answer.services.end(), std::back_inserter(rows), row_of);
  std::array<std::size_t, columns> widths{};
  for (const Row& row : rows)
    for (std::size_t column = 0; column < columns; ++column)
      widths[column] = std::max(widths[column], row[column].size());
  append_row(out, rows.front(), widths, screen.color, true);
  for (std::size_t i = 0; i < answer.services.size(); ++i) {
    append_row(out, rows[i + 1], widths, screen.color, false);
    for (const std::string& line : remarks(answer.services[i], screen.verbose)) out += "    " + line + "\n";
  }
  return out;
}

}  // namespace jail::cli
