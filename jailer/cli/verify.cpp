// jail verify NAME...: the tree of the current generation against its lock, every byte. 0: as locked. 1:
// differences, each on a line of stdout. 65: the lock itself was edited, so that nothing can be compared with
// it.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/verbs.h"
#include "jailer/tree/builder.h"
#include "jailer/tree/plain.h"
#include "jailer/tree/state.h"

namespace jail::cli {
namespace {

Result<VerifyResult> verify_one(const Context& context, const std::string& name) {
  JAIL_CHECK(tree::demand_root("verify a jail"));
  JAIL_TRY(opened, generation::open_current(context.instance, name));
  return verify(opened);
}

/// A word with a slash in it may be the directory of a plain tree.
bool is_directory(const std::string& word) {
  std::error_code error;
  return word.find('/') != std::string::npos && std::filesystem::is_directory(word, error);
}

Result<std::string> absolute(const std::string& word) {
  std::error_code error;
  std::string path = std::filesystem::absolute(word, error).lexically_normal().string();
  if (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

void print(const Context& context, const std::string& name, const VerifyResult& result) {
  for (const Difference& difference : result.differences) fmt::print("{}\n", difference.text);
  if (context.quiet) return;
  if (result.differences.empty()) {
    fmt::print("{}: {} entries, {}, as locked\n", name, result.entries, human_size(result.bytes));
    return;
  }
  fmt::print("{}: {} entries, {}, {} not as locked\n", name, result.entries, human_size(result.bytes),
             result.differences.size());
  if (name.starts_with('/'))
    fmt::print(stderr, "jail: {0}: not as it was built; mend it: jail build --into {0} NAME\n", name);
  else
    fmt::print(stderr, "jail: {0}: not as it was built; a new generation mends it: jail build --force {0}\n",
               name);
}

nlohmann::json as_json(const std::string& name, const VerifyResult& result) {
  nlohmann::json differences = nlohmann::json::array();
  for (const Difference& difference : result.differences)
    differences.push_back({{"path", difference.path}, {"what", difference.what}, {"text", difference.text}});
  return {{"name", name},
          {"entries", result.entries},
          {"bytes", result.bytes},
          {"as_locked", result.differences.empty()},
          {"differences", std::move(differences)}};
}

int run(const Context& context, const std::vector<std::string>& names) {
  int status = 0;
  nlohmann::json verified = nlohmann::json::array();
  for (const std::string& name_or_path : names) {
    const bool plain = is_directory(name_or_path);
    const auto name = plain ? absolute(name_or_path) : jail_name(name_or_path);
    const auto verify_it = [&] { return plain ? verify_plain(*name) : verify_one(context, *name); };
    const auto result = name ? verify_it() : tl::unexpected(name.error());
    if (!result) {
      status = report(result.error());
      continue;
    }
    if (!result->differences.empty() && status == 0) status = static_cast<int>(Exit::answer_no);
    if (context.json)
      verified.push_back(as_json(*name, *result));
    else
      print(context, *name, *result);
  }
  if (context.json) print_json({{"version", 1}, {"jails", std::move(verified)}});
  return status;
}

}  // namespace

void add_verify(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "verify", "Compare every byte of a jail's tree with its lock");
  auto names = std::make_shared<std::vector<std::string>>();
  verb->add_option("name", *names, "The jails, or directories of plain trees")->required();
  verb->callback([&context, names] { context.run = [&context, names] { return run(context, *names); }; });
}

}  // namespace jail::cli
