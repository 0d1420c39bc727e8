// jail list: what is built.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/verbs.h"
#include "jailer/manifest/reader.h"
#include "jailer/tree/builder.h"
#include "jailer/tree/marks.h"

namespace jail::cli {
namespace {

int run(const Context& context) {
  const auto built = list(context.instance);
  if (!built) return report(built.error());
  const std::vector<std::string> manifests = manifest::names(context.instance);
  const auto has_manifest = [&](const std::string& name) {
    const std::size_t at = name.find('@');  // of a template: NAME@.toml
    const std::string wanted = at == std::string::npos ? name : name.substr(0, at + 1);
    return std::binary_search(manifests.begin(), manifests.end(), name) ||
           std::binary_search(manifests.begin(), manifests.end(), wanted);
  };
  if (context.json) {
    nlohmann::json jails = nlohmann::json::array();
    for (const Built& jail : *built)
      jails.push_back({{"name", jail.name},
                       {"generation", jail.generation},
                       {"files", jail.files},
                       {"bytes", jail.bytes},
                       {"provides", jail.provides},
                       {"stale", stale_reasons(context.instance, jail.name)},
                       {"manifest", has_manifest(jail.name)}});
    print_json({{"version", 1}, {"jails", std::move(jails)}});
    return 0;
  }
  std::size_t width = 4;
  for (const Built& jail : *built) width = std::max(width, jail.name.size());
  if (!built->empty() && !context.quiet)
    fmt::print("{:<{}}  {:>10}  {:>6}  {:>8}  {:<8}  {}\n", "NAME", width, "GENERATION", "FILES", "SIZE",
               "MANIFEST", "MARK");
  for (const Built& jail : *built)
    fmt::print("{:<{}}  {:>10}  {:>6}  {:>8}  {:<8}  {}\n", jail.name, width,
               jail.generation == 0 ? "broken" : std::to_string(jail.generation), jail.files,
               human_size(jail.bytes), has_manifest(jail.name) ? "yes" : "no",
               stale_reasons(context.instance, jail.name).empty() ? "-" : "stale");
  return 0;
}

}  // namespace

void add_list(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "list", "List the jails that are built");
  verb->callback([&context] { context.run = [&context] { return run(context); }; });
}

}  // namespace jail::cli
