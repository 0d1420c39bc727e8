// jail init NAME...: the example configuration laid out, and all that a first build needs; --undo: the way
// back.
#include "jailer/init/init.h"

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/format.h"
#include "jailer/cli/verbs.h"
#include "supervisor/base/quote.h"

namespace jail::cli {
namespace {

struct Options {
  std::vector<std::string> names;
  std::string host;  ///< empty: no test certificate; "-": for the host that the example names
  bool keep_units = false;
  bool undo = false;
  bool dry_run = false;
};

const char* word(init::Outcome outcome) {
  switch (outcome) {
    case init::Outcome::made:
      return "made";
    case init::Outcome::there:
      return "there";
    case init::Outcome::kept:
      return "kept";
    case init::Outcome::left:
      return "left";
    case init::Outcome::stopped:
      return "stopped";
    case init::Outcome::removed:
      return "removed";
  }
  return "";
}

/// "made /etc/jail/named/named.conf", "would make the user dhcpd".
std::string sentence(const init::Item& item, bool dry_run) {
  static constexpr std::pair<std::string_view, std::string_view> would[] = {
      {"made", "would make"}, {"removed", "would remove"}, {"stopped", "would stop"}};
  std::string outcome = word(item.outcome);
  const bool path = item.what.starts_with('/');
  if (item.kind == "unit" && path && item.outcome == init::Outcome::made) outcome = "masked";
  for (const auto& [done, planned] : would)
    if (dry_run && word(item.outcome) == done) outcome = planned;
  const std::string what = path ? escape(item.what) : fmt::format("the {} {}", item.kind, item.what);
  return outcome + " " + what + (item.note.empty() ? "" : ": " + escape(item.note));
}

struct Telling {
  nlohmann::json items = nlohmann::json::array();
  bool changed = false;  ///< or would be
};

void tell(const Context& context, const Options& options, const std::string& name, const init::Item& item,
          Telling& telling) {
  telling.changed =
      telling.changed || (item.outcome != init::Outcome::there && item.outcome != init::Outcome::kept &&
                          item.outcome != init::Outcome::left);
  if (context.json) {
    telling.items.push_back(
        {{"kind", item.kind}, {"what", item.what}, {"outcome", word(item.outcome)}, {"note", item.note}});
    return;
  }
  const bool dull =
      item.outcome == init::Outcome::there || (item.kind == "volume" && item.outcome == init::Outcome::left);
  if (context.quiet || (dull && !context.verbose)) return;
  fmt::print("{}: {}\n", name, sentence(item, options.dry_run));
}

Result<nlohmann::json> one(const Context& context, const Options& options, const std::string& name_or_path) {
  JAIL_TRY(name, jail_name(name_or_path));
  if (context.root != "/")
    return fail(Exit::usage, "{}: init lays out for the running system; --root has no meaning here", name);
  Telling telling;
  init::Options how{options.dry_run,
                    options.keep_units,
                    !options.host.empty(),
                    options.host == "-" ? "" : options.host,
                    {}};
  how.tell = [&, name = name](const init::Item& item) { tell(context, options, name, item, telling); };
  JAIL_TRY(next, options.undo ? init::undo(context.instance, name, how)
                              : init::lay_out(context.instance, name_or_path, how));
  if (context.json)
    return nlohmann::json{
        {"name", name}, {"changed", telling.changed}, {"items", telling.items}, {"next", next}};
  if (context.quiet) return nlohmann::json();
  if (!options.undo && !telling.changed) fmt::print("{}: all is there\n", name);
  if (!options.dry_run && !next.empty()) fmt::print("{}: next:\n", name);
  if (!options.dry_run)
    for (const std::string& line : next) fmt::print("  {}\n", escape(line));
  return nlohmann::json();
}

int run(const Context& context, const Options& options) {
  int status = 0;
  nlohmann::json jails = nlohmann::json::array();
  for (const std::string& name : options.names) {
    const auto done = one(context, options, name);
    std::fflush(stdout);
    if (!done) {
      status = report(done.error());
      continue;
    }
    jails.push_back(*done);
  }
  if (context.json)
    print_json(
        {{"version", 1}, {"dry_run", options.dry_run}, {"undo", options.undo}, {"jails", std::move(jails)}});
  return status;
}

}  // namespace

void add_init(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(
      app, context, "init",
      "Lay out the example configuration of a service, and take the distribution's unit out of the way");
  auto options = std::make_shared<Options>();
  verb->add_option("name", options->names, "The jails, or paths of manifests")->required();
  verb->add_flag(
      "--test-certificate{-}", options->host,
      "Make a certificate for trying, for the example's host or (--test-certificate=HOST) another");
  verb->add_flag("--keep-units", options->keep_units, "Leave the distribution's units alone");
  verb->add_flag("--undo", options->undo, "Remove what init made and nobody has changed since");
  verb->add_flag("--dry-run", options->dry_run, "Only say what would be done");
  verb->callback(
      [&context, options] { context.run = [&context, options] { return run(context, *options); }; });
}

}  // namespace jail::cli
