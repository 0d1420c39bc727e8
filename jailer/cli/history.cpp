// jail history NAME: the generations that are kept, the newest first.
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "jailer/cli/format.h"
#include "jailer/cli/generations.h"
#include "jailer/cli/verbs.h"
#include "jailer/tree/builder.h"
#include "jailer/tree/compare.h"

namespace jail::cli {
namespace {

struct Row {
  unsigned long number = 0;
  std::time_t built = 0;
  bool current = false;
  std::size_t processes = 0;  ///< that live in it
  std::size_t files = 0;
  std::uint64_t bytes = 0;
  std::string changes;  ///< against the one before
  std::string problem;  ///< why nothing is known of it
};

std::string in_words(const LockDiff& diff) {
  std::size_t counts[3] = {};
  for (const EntryChange& change : diff.entries) ++counts[static_cast<std::size_t>(change.kind)];
  std::string text;
  const auto add = [&text](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (!diff.entries.empty()) add(fmt::format("+{} -{} ~{}", counts[0], counts[1], counts[2]));
  if (!diff.packages.empty()) add(fmt::format("{} packages", diff.packages.size()));
  if (!diff.policy.empty()) add("policy");
  if (!diff.volumes.empty()) add("volumes");
  return text.empty() ? "nothing" : text;
}

Row describe(const Context& context, const std::string& name, unsigned long number,
             std::optional<Lock>& before) {
  Row row;
  row.number = number;
  const auto opened = open_generation(context, name, number);
  auto lock = opened ? lock_with_secrets(*opened) : tl::unexpected(opened.error());
  struct stat status {};
  if (opened && ::fstat(opened->dir.get(), &status) == 0) row.built = status.st_mtime;
  if (!lock) {
    row.problem = lock.error().message;
    before.reset();
    return row;
  }
  for (const LockEntry& entry : lock->entries) {
    row.files += entry.type == EntryType::file ? 1 : 0;
    row.bytes += entry.size;
  }
  row.changes = before ? in_words(compare(*before, *lock)) : "";
  before = std::move(*lock);
  return row;
}

Result<std::vector<Row>> history(const Context& context, const std::string& name_or_path) {
  JAIL_TRY(name, jail_name(name_or_path));
  JAIL_TRY(in_use, generations_in_use(context.instance, name));
  const auto current = generation::open_current(context.instance, name);
  std::vector<Row> rows;
  std::optional<Lock> before;
  for (const auto& [number, processes] : in_use) {
    rows.push_back(describe(context, name, number, before));
    rows.back().current = current && current->number == number;
    rows.back().processes = processes.size();
  }
  std::reverse(rows.begin(), rows.end());
  return rows;
}

void print(const std::vector<Row>& rows) {
  fmt::print("{:>10}  {:<16}  {:>6}  {:>8}  {:<8}  {}\n", "GENERATION", "BUILT", "FILES", "SIZE", "",
             "CHANGES");
  for (const Row& row : rows) {
    std::tm local{};
    ::localtime_r(&row.built, &local);
    const std::string state =
        row.current ? (row.processes > 0 ? "current*" : "current") : (row.processes > 0 ? "runs" : "");
    fmt::print("{:>10}  {:%F %H:%M}  {:>6}  {:>8}  {:<8}  {}\n", row.number, local, row.files,
               human_size(row.bytes), state, row.problem.empty() ? row.changes : row.problem);
  }
}

int run_history(const Context& context, const std::string& name) {
  const auto rows = history(context, name);
  if (!rows) return report(rows.error());
  if (!context.json) {
    print(*rows);
    return 0;
  }
  nlohmann::json list = nlohmann::json::array();
  for (const Row& row : *rows)
    list.push_back({{"generation", row.number},
                    {"built", row.built},
                    {"current", row.current},
                    {"processes", row.processes},
                    {"files", row.files},
                    {"bytes", row.bytes},
                    {"changes", row.changes},
                    {"problem", row.problem}});
  print_json({{"version", 1}, {"generations", list}});
  return 0;
}

}  // namespace

void add_history(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "history", "List the generations of a jail, the newest first");
  auto name = std::make_shared<std::string>();
  verb->add_option("name", *name, "The jail")->required();
  verb->callback(
      [&context, name] { context.run = [&context, name] { return run_history(context, *name); }; });
}

}  // namespace jail::cli
