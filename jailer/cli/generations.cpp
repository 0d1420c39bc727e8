#include "jailer/cli/generations.h"

#include "jailer/tree/builder.h"

namespace jail::cli {

Result<generation::Opened> open_generation(const Context& context, const std::string& name_or_path,
                                           unsigned long number) {
  JAIL_TRY(name, jail_name(name_or_path));
  if (number == 0) return generation::open_current(context.instance, name);
  auto opened = generation::open_number(context.instance, name, number);
  if (!opened && opened.error().exit == Exit::no_input)
    return with_hint(fail(Exit::no_input, "{}: no generation {}", name, number),
                     fmt::format("those that are there: jail history {}", name));
  return opened;
}

Result<std::vector<std::string>> built_jails(const Context& context) {
  JAIL_TRY(all, list(context.instance));
  std::vector<std::string> names;
  for (const Built& jail : all)
    if (jail.generation != 0) names.push_back(jail.name);
  return names;
}

}  // namespace jail::cli
