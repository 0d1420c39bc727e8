// jail diff NAME [GENERATION] [GENERATION]: what changed between two generations. 0: nothing, 1: something.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/generations.h"
#include "jailer/cli/verbs.h"
#include "jailer/tree/builder.h"
#include "jailer/tree/compare.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail::cli {
namespace {

constexpr std::size_t max_frozen = 256UL << 20U;

struct Options {
  std::string name;
  unsigned long before = 0;
  unsigned long after = 0;
};

/// A value of a frozen file that is not the same in both.
struct ValueChange {
  std::string file;
  std::string where;  ///< a JSON pointer
  std::string before;
  std::string after;
};

struct Pair {
  unsigned long before = 0;
  unsigned long after = 0;
  LockDiff diff;
  std::vector<ValueChange> values;
};

nlohmann::json frozen_json(const generation::Opened& opened, const std::string& file) {
  const auto text = read_file_at(opened.dir.get(), file, max_frozen, false);
  return text ? nlohmann::json::parse(*text, nullptr, false) : nlohmann::json();
}

std::string shown(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// Where the policy differs, value by value: of the files that are JSON.
std::vector<ValueChange> compare_values(const generation::Opened& before, const generation::Opened& after,
                                        const std::vector<std::string>& files) {
  std::vector<ValueChange> changes;
  for (const std::string& file : files) {
    const nlohmann::json a = frozen_json(before, file);
    const nlohmann::json b = frozen_json(after, file);
    if (!a.is_object() || !b.is_object()) continue;
    for (const auto& step : nlohmann::json::diff(a, b)) {
      const std::string where = step.at("path").get<std::string>();
      const nlohmann::json::json_pointer pointer(where);
      const bool added = step.at("op") == "add";  // what is behind a list's end is at "-" there
      changes.push_back({file, where, added ? "(not there)" : shown(a.at(pointer)),
                         step.contains("value") ? shown(step.at("value")) : "(not there)"});
    }
  }
  return changes;
}

Result<Pair> compare_generations(const Context& context, const Options& options) {
  JAIL_TRY(name, jail_name(options.name));
  Pair pair{options.before, options.after, {}, {}};
  JAIL_TRY(after, open_generation(context, name, pair.after));
  pair.after = after.number;
  if (pair.before == 0) {
    JAIL_TRY(earlier, generation_before(context.instance, name, pair.after));
    pair.before = earlier;
  }
  JAIL_TRY(before, open_generation(context, name, pair.before));
  JAIL_TRY(old_lock, lock_with_secrets(before));
  JAIL_TRY(new_lock, lock_with_secrets(after));
  pair.diff = compare(old_lock, new_lock);
  pair.values = compare_values(before, after, pair.diff.policy);
  return pair;
}

const char* sign(EntryChange::Kind kind) {
  switch (kind) {
    case EntryChange::Kind::added:
      return "+";
    case EntryChange::Kind::removed:
      return "-";
    case EntryChange::Kind::changed:
      return "~";
  }
  return "?";
}

std::string versions(const PackageChange& change) {
  return fmt::format("{} -> {}", change.before.empty() ? "(not there)" : change.before,
                     change.after.empty() ? "(not there)" : change.after);
}

void print(const Context& context, const Pair& pair) {
  for (const PackageChange& change : pair.diff.packages)
    fmt::print("{} {}\n", escape(change.name), escape(versions(change)));
  for (const EntryChange& change : pair.diff.entries)
    fmt::print("{} {}{}\n", sign(change.kind), escape(change.path),
               change.what.empty() ? "" : fmt::format(" ({})", fmt::join(change.what, ", ")));
  for (const std::string& file : pair.diff.policy) {
    fmt::print("~ {} (policy)\n", escape(file));
    for (const ValueChange& change : pair.values)
      if (context.verbose && change.file == file)
        fmt::print("    {}: {} -> {}\n", escape(change.where), escape(change.before), escape(change.after));
  }
  for (const std::string& volume : pair.diff.volumes) fmt::print("~ volume {}\n", escape(volume));
}

nlohmann::json as_json(const Pair& pair) {
  nlohmann::json entries = nlohmann::json::array();
  for (const EntryChange& change : pair.diff.entries)
    entries.push_back({{"path", change.path}, {"change", sign(change.kind)}, {"what", change.what}});
  nlohmann::json packages = nlohmann::json::array();
  for (const PackageChange& change : pair.diff.packages)
    packages.push_back({{"name", change.name}, {"before", change.before}, {"after", change.after}});
  nlohmann::json values = nlohmann::json::array();
  for (const ValueChange& change : pair.values)
    values.push_back(
        {{"file", change.file}, {"where", change.where}, {"before", change.before}, {"after", change.after}});
  return {{"version", 1},         {"before", pair.before},       {"after", pair.after},
          {"packages", packages}, {"entries", entries},          {"policy", pair.diff.policy},
          {"values", values},     {"volumes", pair.diff.volumes}};
}

int run_diff(const Context& context, const Options& options) {
  const auto pair = compare_generations(context, options);
  if (!pair) return report(pair.error());
  if (context.json)
    print_json(as_json(*pair));
  else
    print(context, *pair);
  if (pair->diff.empty() && !context.quiet && !context.json)
    fmt::print(stderr, "jail: generations {} and {} are the same\n", pair->before, pair->after);
  return static_cast<int>(pair->diff.empty() ? Exit::ok : Exit::answer_no);
}

}  // namespace

void add_diff(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "diff", "Show what changed between two generations of a jail");
  auto options = std::make_shared<Options>();
  verb->add_option("name", options->name, "The jail")->required();
  verb->add_option("before", options->before, "A generation; default: the one before the other");
  verb->add_option("after", options->after, "A generation; default: the current one");
  verb->callback(
      [&context, options] { context.run = [&context, options] { return run_diff(context, *options); }; });
}

}  // namespace jail::cli
