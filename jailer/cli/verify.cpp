// jail verify [NAME...]: the tree of the current generation against its lock, every byte; --quick by stamps,
// --host the host's files instead of the tree's. 0: as locked. 1: differences, each on a line of stdout. 65:
// the lock itself was edited, so that nothing can be compared with it.
#include "jailer/tree/verify.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/generations.h"
#include "jailer/cli/progress_line.h"
#include "jailer/cli/verbs.h"
#include "jailer/tree/plain.h"
#include "jailer/tree/state.h"
#include "supervisor/base/quote.h"

namespace jail::cli {
namespace {

struct Options {
  std::vector<std::string> names;
  bool quick = false;
  bool full = false;
  bool host = false;
};

/// What a word of the command line names: a jail, or (it holds a slash) the directory of a plain tree.
struct Target {
  std::string name;
  bool plain = false;
};

Result<Target> target_of(const std::string& word) {
  std::error_code error;
  if (word.find('/') == std::string::npos || !std::filesystem::is_directory(word, error)) {
    JAIL_TRY(name, jail_name(word));
    return Target{std::move(name), false};
  }
  std::string path = std::filesystem::absolute(word, error).lexically_normal().string();
  if (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return Target{std::move(path), true};
}

void print(const Context& context, const std::string& name, const VerifyResult& result) {
  for (const Difference& difference : result.differences) fmt::print("{}\n", difference.text);
  if (context.quiet) return;
  const std::string all = fmt::format("{}: {} entries, {}", name, result.entries, human_size(result.bytes));
  if (result.differences.empty()) {
    fmt::print("{}, as locked\n", all);
    return;
  }
  fmt::print("{}, {} not as locked\n", all, result.differences.size());
  if (name.starts_with('/'))
    fmt::print(stderr, "jail: {0}: not as it was built; mend it: jail build --into {0} NAME\n", name);
  else
    fmt::print(stderr, "jail: {0}: not as it was built; a new generation mends it: jail build --force {0}\n",
               name);
}

/// "libssl3 3.0.11-1 -> 3.0.14-1", "libssl3 3.0.11-1 (no longer installed)", "without a package".
std::string title(const HostChange& change) {
  if (change.package.empty()) return "without a package";
  const std::string locked = escape(change.package + " " + change.locked_version);
  if (change.version.empty()) return locked + " (no longer installed)";
  return change.version == change.locked_version ? locked : locked + " -> " + escape(change.version);
}

const char* in_words(const HostChange& change) {
  static constexpr std::pair<std::string_view, const char*> words[] = {
      {"content", "another content"},
      {"gone", "gone"},
      {"type", "no regular file any more"},
      {"xattr", "other extended attributes"}};
  for (const auto& [what, text] : words)
    if (change.what == what) return text;
  return "changed";
}

void print(const Context& context, const std::string& name, const HostResult& result) {
  std::string last;
  for (const HostChange& change : result.changes) {
    const std::string line = fmt::format("{}: {}", name, title(change));
    if (line != last) fmt::print("{}\n", line);
    last = line;
    const std::string as = change.path == change.source ? "" : " (as " + escape(change.path) + ")";
    fmt::print("  {}{}: {}\n", escape(change.source), as, in_words(change));
  }
  if (context.quiet) return;
  if (result.changes.empty()) {
    fmt::print("{}: {} files, {}, as on the host\n", name, result.files, human_size(result.bytes));
    return;
  }
  fmt::print("{}: {} of {} files are not as on the host\n", name, result.changes.size(), result.files);
  fmt::print(stderr, "jail: {0}: to take over what the host has: jail build {0}\n", name);
}

nlohmann::json as_json(const std::string& name, const VerifyResult& result) {
  nlohmann::json differences = nlohmann::json::array();
  for (const Difference& difference : result.differences)
    differences.push_back({{"path", difference.path}, {"what", difference.what}, {"text", difference.text}});
  return {{"name", name},
          {"entries", result.entries},
          {"bytes", result.bytes},
          {"files_read", result.read},
          {"as_locked", result.differences.empty()},
          {"differences", std::move(differences)}};
}

nlohmann::json as_json(const std::string& name, const HostResult& result) {
  nlohmann::json changes = nlohmann::json::array();
  for (const HostChange& change : result.changes)
    changes.push_back({{"source", change.source},
                       {"path", change.path},
                       {"what", change.what},
                       {"package", change.package},
                       {"locked_version", change.locked_version},
                       {"version", change.version}});
  return {{"name", name},
          {"files", result.files},
          {"bytes", result.bytes},
          {"files_read", result.read},
          {"as_on_host", result.changes.empty()},
          {"changes", std::move(changes)}};
}

bool clean(const VerifyResult& result) {
  return result.differences.empty();
}

bool clean(const HostResult& result) {
  return result.changes.empty();
}

Result<VerifyResult> check_tree(const Context& context, const Target& target, const VerifyOptions& options) {
  if (target.plain) return verify_plain(target.name, options);
  JAIL_TRY(opened, generation::open_current(context.instance, target.name));
  return verify(opened, options);
}

Result<HostResult> check_host(const Context& context, const Target& target, const VerifyOptions& options) {
  if (target.plain) return fail(Exit::usage, "{}: --host is for jails", quote(target.name));
  JAIL_TRY(opened, generation::open_current(context.instance, target.name));
  JAIL_TRY(lock, lock_with_secrets(opened));
  return verify_host(lock, context.root, options);
}

/// Calls `check` for each jail, and tells what it found; the exit status.
template <class Check>
int for_each_jail(const Context& context, const Options& options, const Check& check) {
  int status = 0;
  nlohmann::json verified = nlohmann::json::array();
  for (const std::string& name_or_path : options.names) {
    const auto target = target_of(name_or_path);
    if (!target) {
      status = report(target.error());
      continue;
    }
    const auto result = [&] {
      ProgressLine line(context, target->name);
      return check(context, *target, {options.quick ? &context.instance : nullptr, &line.progress()});
    }();
    if (!result) {
      status = report(result.error());
      continue;
    }
    if (!clean(*result) && status == 0) status = static_cast<int>(Exit::answer_no);
    if (context.json)
      verified.push_back(as_json(target->name, *result));
    else
      print(context, target->name, *result);
  }
  if (context.json) print_json({{"version", 1}, {"jails", std::move(verified)}});
  return status;
}

int run(const Context& context, Options options) {
  if (const auto root = tree::demand_root("verify a jail"); !root) return report(root.error());
  if (options.names.empty()) {
    auto all = built_jails(context.instance);
    if (!all) return report(all.error());
    options.names = std::move(*all);
  }
  return options.host ? for_each_jail(context, options, check_host)
                      : for_each_jail(context, options, check_tree);
}

}  // namespace

void add_verify(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "verify", "Compare the trees of jails with their locks");
  auto options = std::make_shared<Options>();
  verb->add_option("name", options->names,
                   "The jails, or directories of plain trees; all jails that are built when none is named");
  auto* quick =
      verb->add_flag("--quick", options->quick, "Do not read what has not been touched, by its stamps");
  verb->add_flag("--full", options->full, "Read every byte (the default)")->excludes(quick);
  verb->add_flag("--host", options->host, "Compare the files of the host with the locks instead");
  verb->callback(
      [&context, options] { context.run = [&context, options] { return run(context, *options); }; });
}

}  // namespace jail::cli
