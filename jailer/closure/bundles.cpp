// Bundles: those that the manifest includes, those that join by what the closure imports, and what each of
// them brings.
#include <algorithm>

#include "jailer/closure/plugins.h"
#include "jailer/closure/work.h"
#include "jailer/manifest/reader.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

using manifest::Bundle;

/// A bundle that is in the plan.
struct Taken {
  Bundle bundle;
  Place place;
  std::set<std::string> known_plugins;
  std::vector<FoundPlugin> plugins;
};

std::vector<std::string> expanded(Work& work, const std::vector<std::string>& paths, const Place& place) {
  std::vector<std::string> out;
  for (const std::string& path : paths)
    if (auto whole = with_lib(work, path, place)) out.push_back(std::move(*whole));
  return out;
}

/// All that `bundle` names, for `why`.
void plan_bundle(Work& work, const Bundle& bundle, const Reason& why, const Place& place) {
  for (const std::string& path : expanded(work, bundle.binaries, place)) plan_program(work, path, why, place);
  for (const std::string& name : bundle.libraries) plan_library(work, name, why, place);
  for (const manifest::File& file : bundle.files) plan_file(work, file, why, place);
  for (const std::string& path : expanded(work, bundle.optional_files, place)) {
    if (!work.source.status(path)) continue;
    manifest::File file;
    file.to = path;
    file.from = path;
    plan_file(work, file, why, place);
  }
  for (const std::string& path : expanded(work, bundle.directories, place))
    work.out.put_directory(path, why, place);
  for (const std::string& name : bundle.devices) plan_device(work, name, why, place);
  work.out.ignore(bundle.ignore);
}

/// The first of `symbols` that something of the closure imports, and the tree path of that.
struct Importer {
  std::string symbol;
  std::string by;
};
std::optional<Importer> imported(const Work& work, const std::vector<std::string>& symbols) {
  for (const std::string& symbol : symbols)
    if (const auto found = work.imports.find(symbol); found != work.imports.end())
      return Importer{symbol, found->second};
  return std::nullopt;
}

class Bundles {
 public:
  explicit Bundles(Work& work) : work_(work) {}

  void plan() {
    include();
    const auto& all = work_.bundles;
    if (!all) return work_.out.problem("tree.include", all.error());
    // What joins may import more, or be configured, which lets others join.
    do plan_dlopen_notes(work_);
    while (join(*all) || find_plugins());
    offer(*all);
    for (const Taken& taken : taken_) add_probes(taken);
  }

 private:
  void include() {
    const auto& names = work_.manifest.tree.include;
    for (std::size_t i = 0; i < names.size(); ++i) {
      const Place place = place_of("tree.include", i);
      const auto bundle = manifest::load_bundle(work_.instance, names[i]);
      if (bundle)
        take(*bundle, {"bundle", {}, "bundle " + bundle->name}, place);
      else
        work_.out.problem(place, bundle.error());
    }
  }

  void take(const Bundle& bundle, const Reason& why, const Place& place) {
    done_.insert(bundle.name);
    plan_bundle(work_, bundle, why, place);
    taken_.push_back({bundle, place, {}, {}});
  }

  [[nodiscard]] bool is_open(const Bundle& bundle) const {
    const auto& exclude = work_.manifest.tree.exclude;
    return !done_.contains(bundle.name) &&
           std::find(exclude.begin(), exclude.end(), bundle.name) == exclude.end();
  }

  bool join(const std::vector<Bundle>& all) {
    bool any = false;
    for (const Bundle& bundle : all) {
      const auto importer = is_open(bundle) ? imported(work_, bundle.imports) : std::nullopt;
      if (!importer) continue;
      any = true;
      const PlanBuilder::Lenient lenient(work_.out);
      take(bundle, {"import", importer->by, fmt::format("bundle {}: {}", bundle.name, importer->symbol)},
           "tree.binaries");
    }
    return any;
  }

  bool find_plugins() {
    bool any = false;
    for (Taken& taken : taken_) {
      const auto found = plan_plugins(work_, taken.bundle, taken.known_plugins, taken.place);
      taken.plugins.insert(taken.plugins.end(), found.begin(), found.end());
      any = any || !found.empty();
    }
    return any;
  }

  /// What might be missed, and does not come unasked.
  void offer(const std::vector<Bundle>& all) {
    for (const Bundle& bundle : all)
      if (const auto importer = is_open(bundle) ? imported(work_, bundle.offers) : std::nullopt)
        work_.out.note(fmt::format("{} is imported by {}: bundle {} brings what it may need ({})",
                                   importer->symbol, importer->by, bundle.name, bundle.description));
  }

  /// {user} is the service's; {plugins} and {names} stand for many words: a probe that has none of them is
  /// not for this jail.
  void add_probes(const Taken& taken) {
    for (const manifest::Probe& probe : taken.bundle.probes) {
      PlannedProbe planned{taken.bundle.name, probe.name, {}};
      bool lacking = false;
      for (const std::string& word : probe.run) {
        if (word == "{plugins}" || word == "{names}") {
          lacking = lacking || taken.plugins.empty();
          for (const FoundPlugin& plugin : taken.plugins)
            planned.run.push_back(word == "{names}" ? plugin.word : plugin.path);
        } else if (word == "{user}") {
          planned.run.push_back(work_.manifest.service.user);
        } else if (auto whole = with_lib(work_, word, taken.place)) {
          planned.run.push_back(std::move(*whole));
        }
      }
      if (!lacking) work_.out.probe(std::move(planned));
    }
  }

  Work& work_;
  std::set<std::string> done_;
  std::vector<Taken> taken_;
};

}  // namespace

void plan_bundles(Work& work) {
  Bundles(work).plan();
}

}  // namespace jail
