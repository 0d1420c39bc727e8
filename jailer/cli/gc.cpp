// jail gc: what no jail needs any more goes. 75: a build was at something, which was left alone.
#include <fmt/ranges.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/verbs.h"
#include "jailer/tree/builder.h"

namespace jail::cli {
namespace {

std::string why_used(const GcResult::Used& used) {
  return used.processes.empty() ? std::string("jaild has it loaded")
                                : fmt::format("pid {} lives in it", fmt::join(used.processes, ", "));
}

void print(const GcResult& result, const GcOptions& options) {
  const char* done = options.dry_run ? "would be removed" : "removed";
  for (const GcResult::Generation& generation : result.generations)
    fmt::print("{}: generation {} {}, {}\n", generation.jail, generation.number, done,
               human_size(generation.bytes));
  for (const GcResult::Used& used : result.used)
    fmt::print("{}: generation {} stays: {}\n", used.jail, used.number, why_used(used));
  fmt::print("{} generations and {} shared files {}, {} in all\n", result.generations.size(), result.objects,
             done, human_size(result.bytes));
}

void print_as_json(const GcResult& result, const GcOptions& options) {
  nlohmann::json removed = nlohmann::json::array();
  for (const GcResult::Generation& generation : result.generations)
    removed.push_back(
        {{"name", generation.jail}, {"generation", generation.number}, {"bytes", generation.bytes}});
  nlohmann::json used = nlohmann::json::array();
  for (const GcResult::Used& each : result.used)
    used.push_back({{"name", each.jail}, {"generation", each.number}, {"processes", each.processes}});
  print_json({{"version", 1},
              {"dry_run", options.dry_run},
              {"removed", std::move(removed)},
              {"used", std::move(used)},
              {"objects", result.objects},
              {"bytes", result.bytes},
              {"complete", result.busy.empty()}});
}

int run(const Context& context, const GcOptions& options) {
  const auto result = collect_garbage(context.instance, options);
  if (!result) return report(result.error());
  int status = 0;
  for (const Error& busy : result->busy) status = report(busy);
  if (context.json)
    print_as_json(*result, options);
  else if (!context.quiet)
    print(*result, options);
  return status;
}

}  // namespace

void add_gc(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "gc", "Remove old generations, and shared files that no jail has");
  auto options = std::make_shared<GcOptions>();
  verb->add_flag("--dry-run", options->dry_run, "Only say what would be removed");
  verb->add_option("--keep", options->keep, "How many generations before the current one stay; default: 2")
      ->type_name("N");
  verb->callback(
      [&context, options] { context.run = [&context, options] { return run(context, *options); }; });
}

}  // namespace jail::cli
