// jail why NAME WHAT: the shortest chain of reasons from the manifest to an entry of the tree; with --all
// every chain. WHAT is a path or the end of one, or a package. Asks the current generation's lock; where
// nothing is built yet, a fresh plan.
#include "jailer/closure/why.h"

#include <fcntl.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/verbs.h"
#include "jailer/closure/plan_builder.h"
#include "jailer/closure/planner.h"
#include "jailer/closure/source_root.h"
#include "jailer/manifest/reader.h"
#include "jailer/tree/lock.h"
#include "jailer/views/needed.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/spec/generation.h"

namespace jail::cli {
namespace {

using nlohmann::json;

constexpr std::size_t most_chains = 200;

struct Options {
  std::string name;
  std::string wanted;
  bool all = false;
};

/// What a plan or a lock knows.
struct Known {
  Reasons reasons;
  std::multimap<std::string, std::string> packages;  ///< name -> path; of a plan: nothing
};

Result<Known> of_lock(const generation::Opened& opened, bool all) {
  JAIL_TRY(lock, all ? views::lock_with_needed(opened) : lock_of(opened));
  Known known;
  for (LockEntry& entry : lock.entries) {
    if (!entry.package.empty()) known.packages.emplace(entry.package, entry.path);
    known.reasons[entry.path] = std::move(entry.why);
  }
  return known;
}

Result<Known> of_plan(const Context& context, const Options& options) {
  JAIL_TRY(manifest, manifest::load(context.instance, options.name));
  JAIL_TRY(plan, make_plan(context.instance, manifest, context.root));
  Known known;
  std::vector<std::string> files;
  for (const auto& [path, entry] : plan.entries) {
    if (!entry.source.empty()) files.push_back(path);
    known.reasons[path] = entry.why;
  }
  if (!options.all) return known;
  JAIL_TRY(source, SourceRoot::open(context.root));
  views::add_needed(known.reasons, files, [&](const std::string& path) {
    auto fd = source.open_at(plan.entries.at(path).source, O_RDONLY | O_NOCTTY);
    return fd ? std::move(*fd) : UniqueFd();
  });
  return known;
}

Result<Known> look_up(const Context& context, const Options& options) {
  JAIL_TRY(name, jail_name(options.name));
  const auto opened = generation::open_current(context.instance, name);
  if (opened) return of_lock(*opened, options.all);
  if (opened.error().exit != Exit::no_input) return tl::unexpected(opened.error());
  return of_plan(context, options);
}

json as_json(const std::vector<WhyStep>& chain) {
  json steps = json::array();
  for (const WhyStep& step : chain) {
    steps.push_back({{"path", step.path},
                     {"kind", step.reason.kind},
                     {"by", step.reason.by},
                     {"detail", step.reason.detail}});
  }
  return steps;
}

std::string as_text(const std::vector<WhyStep>& chain) {
  std::string text;
  for (const WhyStep& step : chain) text += "  " + escape(in_words(step.reason)) + "\n";
  return text;
}

Result<std::string> chains_to(const Context& context, const Options& options, const Known& known,
                              const std::string& path) {
  const auto [chains, complete] = all_chains(known.reasons, path, options.all ? most_chains : 1);
  if (chains.empty()) return fail(Exit::internal, "{}: its reasons do not lead to the manifest", quote(path));
  if (context.json) {
    json object = {{"version", 1}, {"chain", as_json(chains.front())}};
    if (options.all) {
      object["complete"] = complete;
      for (const auto& chain : chains) object["chains"].push_back(as_json(chain));
    }
    return object.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  }
  std::string text = escape(path) + "\n";
  for (const auto& chain : chains) {
    if (&chain != &chains.front()) text += "or\n";
    text += as_text(chain);
  }
  if (options.all && !complete) text += fmt::format("and more: these are the first {}\n", chains.size());
  return text;
}

/// Each file of a package, by its shortest chain.
Result<std::string> chains_to_package(const Context& context, const Options& options, const Known& known) {
  json files = json::array();
  std::string text;
  const auto [first, last] = known.packages.equal_range(options.wanted);
  for (auto at = first; at != last; ++at) {
    const auto chain = shortest_chain(known.reasons, at->second);
    files.push_back({{"path", at->second}, {"chain", as_json(chain)}});
    text += escape(at->second) + "\n" + as_text(chain);
  }
  if (!context.json) return text;
  const json object = {{"version", 1}, {"package", options.wanted}, {"files", files}};
  return object.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<std::string> answer(const Context& context, const Options& options) {
  JAIL_TRY(known, look_up(context, options));
  const bool a_file = std::any_of(known.reasons.begin(), known.reasons.end(), [&](const auto& entry) {
    return entry.first.ends_with("/" + options.wanted);
  });
  if (!a_file && known.packages.contains(options.wanted)) return chains_to_package(context, options, known);
  JAIL_TRY(path, find_entry(known.reasons, options.wanted));
  return chains_to(context, options, known, path);
}

int run_why(const Context& context, const Options& options) {
  const auto text = answer(context, options);
  if (!text) return report(text.error());
  const auto written = write_all(STDOUT_FILENO, *text, "standard output");
  return written ? 0 : report(written.error());
}

}  // namespace

void add_why(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "why", "Say why a file is in the tree");
  auto options = std::make_shared<Options>();
  verb->add_option("name", options->name, "The jail, or the path of a manifest")->required();
  verb->add_option("path", options->wanted, "A path in the tree, or the end of one, or a package")
      ->required();
  verb->add_flag("--all", options->all, "Every chain of reasons, not the shortest alone");
  verb->callback(
      [&context, options] { context.run = [&context, options] { return run_why(context, *options); }; });
}

}  // namespace jail::cli
