// jail doctor: what this kernel and its security modules can enforce, and what that means for each built
// jail.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/verbs.h"
#include "jailer/tree/builder.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/sandbox/features.h"

namespace jail::cli {
namespace {

using sandbox::FeatureLine;
using sandbox::Features;

/// What the host means for one built jail.
struct Finding {
  std::string name;
  bool runs = true;                  ///< false: jaild would refuse to start it here
  std::string why;                   ///< not runs
  std::string hint;                  ///< not runs
  std::vector<std::string> missing;  ///< runs, but without these
};

Result<std::vector<std::string>> missing_of(const Instance& instance, const std::string& name,
                                            const Features& features) {
  JAIL_TRY(opened, generation::open_current(instance, name));
  JAIL_TRY(spec, read_launch_spec(opened));
  return sandbox::missing_features(spec, features);
}

Finding examine(const Instance& instance, const std::string& name, const Features& features) {
  Finding finding;
  finding.name = name;
  auto missing = missing_of(instance, name, features);
  if (missing) {
    finding.missing = std::move(*missing);
  } else {
    finding.runs = false;
    finding.why = missing.error().message;
    finding.hint = missing.error().hint;
  }
  return finding;
}

Result<std::vector<Finding>> examine_all(const Context& context, const Features& features) {
  JAIL_TRY(jails, list(context.instance));
  std::vector<Finding> findings;
  for (const Built& jail : jails) findings.push_back(examine(context.instance, jail.name, features));
  return findings;
}

const char* word_of(const FeatureLine& line) {
  if (line.present) return "yes";
  return line.floor ? "NO" : "no";
}

void print_host(const std::vector<FeatureLine>& lines) {
  std::size_t width = 0;
  for (const FeatureLine& line : lines) width = std::max(width, std::string_view(line.name).size());
  bool floor = true;
  fmt::print("The floor, without which nothing runs:\n");
  for (const FeatureLine& line : lines) {
    if (std::exchange(floor, line.floor) && !line.floor) fmt::print("On top, where it is there:\n");
    const std::string detail = line.detail.empty() ? "" : fmt::format(" [{}]", escape(line.detail));
    fmt::print("  {:<{}}  {:<3}  {}{}\n", line.name, width, word_of(line), line.meaning, detail);
  }
}

void print_jails(const std::vector<Finding>& findings) {
  for (const Finding& finding : findings) {
    if (!finding.runs) {
      fmt::print("{}: cannot run here: {}\n", finding.name, finding.why);
      if (!finding.hint.empty()) fmt::print("  {}\n", finding.hint);
    } else if (finding.missing.empty()) {
      fmt::print("{}: all that it asks for is enforced here\n", finding.name);
    } else {
      fmt::print("{}: runs, without:\n", finding.name);
      for (const std::string& item : finding.missing) fmt::print("  {}\n", item);
    }
  }
}

nlohmann::json as_json(const std::vector<FeatureLine>& lines, const std::vector<Finding>& findings) {
  nlohmann::json features = nlohmann::json::array();
  for (const FeatureLine& line : lines)
    features.push_back({{"name", line.name},
                        {"present", line.present},
                        {"floor", line.floor},
                        {"requirable", line.requirable},
                        {"detail", line.detail},
                        {"meaning", line.meaning}});
  nlohmann::json jails = nlohmann::json::array();
  for (const Finding& finding : findings)
    jails.push_back({{"name", finding.name},
                     {"runs", finding.runs},
                     {"why", finding.why},
                     {"not_enforced", finding.missing}});
  return {{"version", 1}, {"features", std::move(features)}, {"jails", std::move(jails)}};
}

int run(const Context& context) {
  const Features features = sandbox::probe_features();
  const auto findings = examine_all(context, features);
  if (!findings) return report(findings.error());
  const auto lines = sandbox::describe(features);
  if (context.json) {
    print_json(as_json(lines, *findings));
  } else {
    print_host(lines);
    print_jails(*findings);
  }
  const bool well = features.floor() && std::all_of(findings->begin(), findings->end(),
                                                    [](const Finding& finding) { return finding.runs; });
  if (!features.floor() && !features.root)
    fmt::print(stderr, "jail: not root, so that much of the floor cannot be asked for; run it as root\n");
  return static_cast<int>(well ? Exit::ok : Exit::answer_no);
}

}  // namespace

void add_doctor(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, context, "doctor", "Say what this host can enforce, and what that means for each jail");
  verb->callback([&context] { context.run = [&context] { return run(context); }; });
}

}  // namespace jail::cli
