// The way back: what the record has, last first, as far as nobody has changed it.
#include <fmt/ranges.h>

#include <algorithm>

#include "jailer/init/init.h"
#include "jailer/init/place.h"
#include "jailer/init/plan.h"
#include "jailer/init/record.h"
#include "jailer/init/units.h"
#include "jailer/tree/builder.h"
#include "jailer/tree/hash.h"
#include "jailer/tree/state.h"

namespace jail::init {
namespace {

class Undoer {
 public:
  Undoer(std::string name, const Records& records, const Options& options)
      : name_(std::move(name)), records_(records), options_(options) {}

  Result<void> run(const Record& record) {
    for (auto made = record.made.rbegin(); made != record.made.rend(); ++made) {
      if (made->kind == "file") JAIL_CHECK(file(*made));
      if (made->kind == "directory") JAIL_CHECK(directory(made->what));
      if (made->kind == "unit") JAIL_CHECK(unit(made->what));
      if (made->kind == "user" || made->kind == "group")
        tell(made->kind, made->what, Outcome::kept,
             fmt::format("files may belong to it; when none do: {}del {}", made->kind, made->what));
    }
    if (options_.dry_run) return {};
    if (!unmasked_.empty()) JAIL_CHECK(reread_units());
    return records_.remove(name_);
  }

  [[nodiscard]] const std::vector<std::string>& unmasked() const { return unmasked_; }

 private:
  void tell(const std::string& kind, const std::string& what, Outcome outcome,
            const std::string& note) const {
    options_.tell({kind, what, outcome, note});
  }

  Result<void> file(const Made& made) {
    if (!options_.dry_run) remove_half_made(made.what);
    JAIL_TRY(seen, look(made.what));
    if (!seen.there) return {};
    if (!S_ISREG(seen.status.st_mode) || !seen.whole || sha256_hex(seen.content) != made.sha256) {
      keep(made.what);
      tell("file", made.what, Outcome::kept, "changed since");
      return {};
    }
    if (!options_.dry_run) JAIL_CHECK(remove_file(made.what));
    tell("file", made.what, Outcome::removed, {});
    return {};
  }

  Result<void> directory(const std::string& path) {
    if (!options_.dry_run) remove_half_made(path);
    JAIL_TRY(seen, look(path));
    if (!seen.there) return {};
    bool removed = S_ISDIR(seen.status.st_mode) && !holds_kept(path);
    if (removed && !options_.dry_run) {
      JAIL_TRY(done, remove_directory(path));
      removed = done;
    }
    tell("directory", path, removed ? Outcome::removed : Outcome::kept, removed ? "" : "it is not empty");
    return {};
  }

  Result<void> unit(const std::string& path) {
    JAIL_TRY(seen, look(path));
    if (!seen.there) return {};
    JAIL_TRY(other, records_.shared_with(name_, "unit", path));
    if (!other.empty() || !seen.is_link_to(nowhere)) {
      tell("unit", path, Outcome::kept,
           other.empty() ? "changed since" : fmt::format("the jail {} wants it masked, too", other));
      return {};
    }
    if (!options_.dry_run) JAIL_CHECK(remove_file(path));
    unmasked_.push_back(path.substr(path.rfind('/') + 1));
    tell("unit", path, Outcome::removed, {});
    return {};
  }

  void keep(const std::string& path) { kept_.push_back(path); }
  [[nodiscard]] bool holds_kept(const std::string& directory) const {
    return std::any_of(kept_.begin(), kept_.end(),
                       [&](const std::string& path) { return path.starts_with(directory + "/"); });
  }

  std::string name_;
  const Records& records_;
  const Options& options_;
  std::vector<std::string> kept_;
  std::vector<std::string> unmasked_;
};

Result<void> demand_stopped(const Instance& instance, const std::string& name) {
  const auto running = running_in(instance, name);
  if (!running && running.error().exit == Exit::no_input) return {};
  if (!running) return tl::unexpected(running.error());
  if (running->empty()) return {};
  return with_hint(fail(Exit::busy, "{}: still runs (pid {})", name, fmt::join(*running, ", ")),
                   "run: " + command_line(instance, "stop " + name));
}

}  // namespace

Result<std::vector<std::string>> undo(const Instance& instance, const std::string& name,
                                      const Options& options) {
  JAIL_CHECK(tree::demand_root("undo an init"));
  JAIL_TRY(records, Records::open(instance, false));
  JAIL_TRY(record, records.load(name));
  if (!record) return fail(Exit::no_input, "{}: nothing to undo: jail init made nothing for it", name);
  if (!options.dry_run) JAIL_CHECK(demand_stopped(instance, name));
  Undoer undoer(name, records, options);
  JAIL_CHECK(undoer.run(*record));
  std::vector<std::string> next;
  if (!undoer.unmasked().empty())
    next.push_back(
        fmt::format("systemctl start {}   # the distribution's own", fmt::join(undoer.unmasked(), " ")));
  next.push_back(command_line(instance, "remove " + name) + "   # its trees; with --purge its volumes, too");
  return next;
}

}  // namespace jail::init
