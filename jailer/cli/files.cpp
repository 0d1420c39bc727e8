// jail files NAME: what is in the tree, from the lock.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/generations.h"
#include "jailer/cli/verbs.h"
#include "jailer/tree/attributes_json.h"
#include "jailer/tree/lock.h"
#include "jailer/tree/lock_reader.h"
#include "supervisor/base/quote.h"

namespace jail::cli {
namespace {

struct Options {
  std::string name;
  unsigned long generation = 0;
  bool details = false;
};

void print_details(const LockEntry& entry) {
  const std::string package =
      entry.package.empty() ? "" : fmt::format("  [{} {}]", entry.package, entry.package_version);
  const std::string target = entry.type == EntryType::symlink ? " -> " + escape(entry.target) : "";
  const std::string size = entry.secret ? "secret" : std::to_string(entry.size);
  fmt::print("{}{:04o} {:>5}:{:<5} {:>10}  {}{}{}\n", type_letter(entry.type), entry.mode, entry.uid,
             entry.gid, size, escape(entry.path), target, escape(package));
}

nlohmann::json as_json(const LockEntry& entry) {
  nlohmann::json object = {{"path", entry.path},
                           {"type", tree::type_name(entry.type)},
                           {"mode", fmt::format("{:04o}", entry.mode)},
                           {"uid", entry.uid},
                           {"gid", entry.gid},
                           {"target", entry.target},
                           {"package", entry.package},
                           {"version", entry.package_version}};
  if (entry.secret) {
    object["secret"] = true;
  } else {
    object["size"] = entry.size;
    object["sha256"] = entry.sha256;
    if (!entry.xattrs.empty()) object["xattrs"] = tree::attributes_json(entry.xattrs);
  }
  return object;
}

int run_files(const Context& context, const Options& options) {
  const auto opened = open_generation(context, options.name, options.generation);
  if (!opened) return report(opened.error());
  const auto lock = lock_of(*opened);
  if (!lock) return report(lock.error());
  nlohmann::json files = nlohmann::json::array();
  for (const LockEntry& entry : lock->entries) {
    if (context.json)
      files.push_back(as_json(entry));
    else if (options.details)
      print_details(entry);
    else
      fmt::print("{}\n", escape(entry.path));
  }
  if (context.json)
    print_json({{"version", 1}, {"name", lock->name}, {"generation", opened->number}, {"files", files}});
  return 0;
}

}  // namespace

void add_files(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "files", "List what is in a jail's tree");
  auto options = std::make_shared<Options>();
  verb->add_option("name", options->name, "The jail")->required();
  verb->add_option("generation", options->generation, "Which generation; default: the current one");
  verb->add_flag("-l,--long", options->details, "Mode, owner, size and package, too");
  verb->callback(
      [&context, options] { context.run = [&context, options] { return run_files(context, *options); }; });
}

}  // namespace jail::cli
