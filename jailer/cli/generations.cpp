#include "jailer/cli/generations.h"

#include <charconv>
#include <cstdlib>

#include "jailer/tree/processes.h"
#include "supervisor/base/quote.h"

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

Result<std::vector<std::string>> built_jails(const Instance& instance) {
  JAIL_TRY(names, jails_there(instance));
  std::erase_if(names, [&](const std::string& name) { return !generation::open_current(instance, name); });
  return std::move(names);
}

Result<std::optional<std::time_t>> source_date_epoch() {
  const char* text = std::getenv("SOURCE_DATE_EPOCH");
  if (text == nullptr) return std::nullopt;
  const std::string_view digits(text);
  std::uint32_t seconds = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), seconds);
  if (error != std::errc{} || end != digits.data() + digits.size())
    return fail(Exit::usage, "SOURCE_DATE_EPOCH is {}, which is no number of seconds since 1970",
                quote(digits));
  return seconds;
}

}  // namespace jail::cli
