// jail lock NAME: the contract of the current generation, as it is on disk.
#include "jailer/tree/lock.h"

#include <fmt/format.h>

#include "jailer/cli/verbs.h"
#include "supervisor/spec/generation.h"

namespace jail::cli {
namespace {

Result<std::string> current_lock(const Instance& instance, const std::string& name_or_path) {
  JAIL_TRY(name, jail_name(name_or_path));
  JAIL_TRY(opened, generation::open_current(instance, name));
  JAIL_TRY(lock, lock_of(opened));
  return to_json(lock);
}

}  // namespace

void add_lock(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, context, "lock", "Print jail.lock: every entry of the tree, and why it is there");
  auto name = std::make_shared<std::string>();
  verb->add_option("name", *name, "The jail")->required();
  verb->callback([&context, name] {
    context.run = [&context, name] {
      auto text = current_lock(context.instance, *name);
      if (!text) return report(text.error());
      fmt::print("{}", *text);
      return 0;
    };
  });
}

}  // namespace jail::cli
