// jail ps [NAME...] [--stale]: the processes of the jails, and which of them live in an old generation.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/services.h"
#include "jailer/cli/verbs.h"
#include "jailer/closure/planner.h"
#include "jailer/tree/processes.h"
#include "supervisor/base/quote.h"

namespace jail::cli {
namespace {

struct Options {
  std::vector<std::string> names;
  bool stale = false;
};

/// As the machine's own passwd has them: a jail's says the same of those that it knows.
std::map<uid_t, std::string> user_names() {
  std::map<uid_t, std::string> names;
  if (const auto accounts = read_accounts("/"))
    for (const UserEntry& user : accounts->users) names.emplace(user.uid, user.name);
  return names;
}

Result<std::vector<JailProcess>> look(const Context& context, const Options& options) {
  JAIL_TRY(names, options.names.empty() ? jails_there(context.instance) : jail_names(options.names));
  if (options.names.empty())  // what has never been built has no generations
    std::erase_if(names, [&](const std::string& name) {
      return ::access((context.instance.jail(name) + "/gen").c_str(), F_OK) != 0;
    });
  JAIL_TRY(all, processes_of(context.instance, names));
  if (options.stale) std::erase_if(all, [](const JailProcess& process) { return !process.old(); });
  return std::move(all);
}

using Row = std::array<std::string, 6>;

Row row_of(const JailProcess& process, const std::string& user) {
  std::tm local{};
  ::localtime_r(&process.since, &local);
  std::string generation = std::to_string(process.generation);
  if (process.old()) generation += process.current == 0 ? " of none" : fmt::format(" of {}", process.current);
  return {
      process.jail,           generation, std::to_string(process.pid), user, fmt::format("{:%F %T}", local),
      escape(process.command)};
}

void print(const Context& context, const std::vector<Row>& rows) {
  std::vector<Row> all;
  if (!context.quiet) all.push_back({"JAIL", "GENERATION", "PID", "USER", "SINCE", "COMMAND"});
  all.insert(all.end(), rows.begin(), rows.end());
  std::array<std::size_t, 6> widths{};
  for (const Row& row : all)
    for (std::size_t i = 0; i + 1 < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  for (const Row& row : all) {
    for (std::size_t i = 0; i + 1 < row.size(); ++i) fmt::print("{:<{}}  ", row[i], widths[i]);
    fmt::print("{}\n", row.back());
  }
}

int run_ps(const Context& context, const Options& options) {
  const auto all = look(context, options);
  if (!all) return report(all.error());
  const auto users = user_names();
  const auto name_of = [&users](uid_t uid) {
    const auto found = users.find(uid);
    return found == users.end() ? std::to_string(uid) : escape(found->second);
  };
  if (context.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const JailProcess& process : *all)
      list.push_back({{"jail", process.jail},
                      {"generation", process.generation},
                      {"current_generation", process.current},
                      {"stale", process.old()},
                      {"pid", process.pid},
                      {"uid", process.uid},
                      {"user", name_of(process.uid)},
                      {"since", process.since},
                      {"command", process.command}});
    print_json({{"version", 1}, {"processes", std::move(list)}});
  } else if (!all->empty()) {
    std::vector<Row> rows;
    for (const JailProcess& process : *all) rows.push_back(row_of(process, name_of(process.uid)));
    print(context, rows);
  }
  return static_cast<int>(options.stale && !all->empty() ? Exit::answer_no : Exit::ok);
}

}  // namespace

void add_ps(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, context, "ps", "Show the processes of jails, and in which generation each lives");
  auto options = std::make_shared<Options>();
  verb->add_option("name", options->names, "The jails; all when none is named");
  verb->add_flag("--stale", options->stale,
                 "Only those that live in another generation than the current one");
  verb->callback(
      [&context, options] { context.run = [&context, options] { return run_ps(context, *options); }; });
}

}  // namespace jail::cli
