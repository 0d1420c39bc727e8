#include "jailer/elf/search.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "jailer/elf/isa.h"
#include "supervisor/base/quote.h"

namespace jail::elf {
namespace {

std::string words_of(int error) {
  if (error == ENOENT) return "no such file";
  const char* text = ::strerrordesc_np(error);
  return text != nullptr ? text : "error " + std::to_string(error);
}

std::string without_slash(const std::string& directory) {
  return directory.empty() ? directory : directory.substr(0, directory.size() - 1);
}

/// As the entry stands in its cache, but for the number of its name there.
CacheLine line_of(const CacheEntry& entry) {
  const std::uint64_t number = entry.named() ? 0xffffffff : 0;
  return {std::string(entry.hwcap_name), entry.hwcap & ~number};
}

}  // namespace

/// One candidate: what open_verify makes of it.
Search::Step Search::look(const std::string& path, const char* rule, Outcome& outcome, bool trace) {
  const auto note = [&](std::string words) {
    if (trace) outcome.tried.push_back({path, std::move(words)});
  };
  const auto fatal = [&](std::string reason) {
    note(reason);
    outcome.kind = Outcome::Kind::fatal;
    outcome.path = path;
    outcome.reason = std::move(reason);
    return Step::done;
  };
  if (path.empty() || path[0] != '/') {
    note("relative: depends on the current directory");
    outcome.notes.push_back("the search path element of " + quote(path) +
                            " is relative to the current directory");
    return Step::go_on;
  }
  const RootTree::Found& found = store_.find(path);
  if (found.kind == RootTree::Kind::missing) {
    note(words_of(found.error));
    const bool common = found.error == ENOENT || found.error == EACCES || found.error == ENOTDIR;
    return common ? Step::go_on : Step::stop_list;
  }
  if (found.kind == RootTree::Kind::directory) return fatal("cannot read file data: Is a directory");
  if (found.kind != RootTree::Kind::regular) return fatal("neither a regular file nor a directory");
  ParsedFile& file = store_.parsed(found);
  const Verdict verdict = judge(file.header, policy_.abi);
  if (verdict.kind == Verdict::Kind::fatal) {
    return fatal(file.elf || file.header.magic || file.problem == "not an ELF file" ? verdict.reason
                                                                                    : file.problem);
  }
  if (verdict.kind != Verdict::Kind::take) {
    note(verdict.reason);
    return Step::go_on;
  }
  note("found");
  outcome.kind = Outcome::Kind::found;
  outcome.path = path;
  outcome.rule = rule;
  outcome.file = &file;
  outcome.where = &found;
  return Step::done;
}

bool Search::is_usable(const std::string& path, const RootTree::Found** where) {
  if (path.empty() || path[0] != '/') return false;
  const RootTree::Found& found = store_.find(path);
  if (found.kind != RootTree::Kind::regular) return false;
  *where = &found;
  return judge(store_.parsed(found).header, policy_.abi).kind == Verdict::Kind::take;
}

/// The subdirectories that exist (ld.so, too, asks for each once).
const std::vector<const Subdirectory*>& Search::subdirectories_of(const std::string& directory) {
  const auto known = existing_.find(directory);
  if (known != existing_.end()) return known->second;
  std::vector<const Subdirectory*> existing;
  const bool relative = directory.empty() || directory[0] != '/';
  const bool exists = relative || store_.find(directory).kind == RootTree::Kind::directory;
  for (const Subdirectory& subdirectory : policy_.subdirectories) {
    if (!exists) break;
    const bool itself = subdirectory.name.empty();
    if (itself ||
        (!relative && store_.find(directory + subdirectory.name).kind == RootTree::Kind::directory)) {
      existing.push_back(&subdirectory);
    }
  }
  return existing_.emplace(directory, std::move(existing)).first->second;
}

/// A list of directories: ld.so's open_path.
Search::Step Search::walk(const std::vector<std::string>& directories, const std::string& name,
                          const char* rule, Outcome& outcome, bool trace) {
  for (const std::string& directory : directories) {
    const auto& subdirectories = subdirectories_of(directory);
    if (subdirectories.empty() && trace) outcome.tried.push_back({directory + name, "no such directory"});
    Step step = Step::go_on;
    for (const Subdirectory* subdirectory : subdirectories) {
      const std::string path = directory + subdirectory->name + name;
      if (subdirectory->variant()) {
        const RootTree::Found* where = nullptr;
        if (is_usable(path, &where)) {
          outcome.variants.push_back({path, without_slash(subdirectory->name), where->located, {}});
        }
        continue;
      }
      step = look(path, rule, outcome, trace);
      if (step == Step::done) return step;
    }
    if (step == Step::stop_list) return Step::go_on;  // this list only: the next rule is still tried
  }
  return Step::go_on;
}

/// Where the subdirectory `name` stands in the search order.
std::optional<std::size_t> Search::level_of(const std::string& name) const {
  const auto& all = policy_.subdirectories;
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Subdirectory& other) { return other.name == name; });
  if (found == all.end()) return std::nullopt;
  return static_cast<std::size_t>(found - all.begin());
}

Search::Use Search::use_of(const CacheEntry& entry) const {
  using Kind = Use::Kind;
  if (entry.hwcap == 0) return {Kind::taken, policy_.subdirectories.size()};
  if (!entry.named()) return use_of_legacy(entry.hwcap);
  const auto level = level_of(subdirectory_of(entry) + "/");
  if (!level || entry.hwcap_name.empty()) return {};  // the loader does not know of it
  if (policy_.subdirectories[*level].variant()) return {Kind::variant, *level};
  const IsaLevels isa = isa_levels(policy_);
  if (isa.told && (isa.processor >> entry.isa_level() & 1U) == 0) return {};
  return {Kind::taken, *level};
}

/// Entries of "haswell/" and the like, each bit of whose hwcap the processor must have.
Search::Use Search::use_of_legacy(std::uint64_t hwcap) const {
  using Kind = Use::Kind;
  if (!policy_.legacy || (hwcap & CacheEntry::named_hwcap) != 0) return {};
  Use use{Kind::taken, policy_.subdirectories.size() - 1};
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((hwcap >> bit & 1U) == 0) continue;
    const auto name = policy_.cache_bits.find(bit);
    const auto level = name == policy_.cache_bits.end() ? std::nullopt : level_of(name->second);
    if (!level || policy_.subdirectories[*level].variant()) use.kind = Kind::variant;
  }
  return use;
}

/// "glibc-hwcaps/x86-64-v3"; of a legacy entry, as much of its path as is a subdirectory.
std::string Search::subdirectory_of(const CacheEntry& entry) const {
  if (entry.named()) return "glibc-hwcaps/" + std::string(entry.hwcap_name);
  const std::string_view directory = entry.path.substr(0, entry.path.rfind('/') + 1);
  for (const Subdirectory& subdirectory : policy_.subdirectories) {
    const std::string& name = subdirectory.name;
    if (!name.empty() && directory.ends_with("/" + name)) return without_slash(name);
  }
  return "hwcaps";
}

/// Whether it is of a kind that the loader takes: for its class and machine.
bool Search::is_for_loader(const CacheEntry& entry) const {
  const auto& flags = policy_.cache_flags;
  return std::find(flags.begin(), flags.end(), entry.flags) != flags.end();
}

/// The entry that ld.so takes: the best with a name, else the first that the processor can use
/// (search_cache() in dl-cache.c; those with names stand before the others).
const CacheEntry* Search::choose(const std::string& name) const {
  const CacheEntry* best = nullptr;
  std::size_t best_level = 0;
  for (const std::uint32_t index : cache_->find(name)) {
    const CacheEntry& entry = cache_->entries()[index];
    const Use use = is_for_loader(entry) ? use_of(entry) : Use{};
    if (use.kind != Use::Kind::taken) continue;
    if (best != nullptr && !entry.named()) break;
    if (best != nullptr && use.level >= best_level) continue;
    best = &entry;
    best_level = use.level;
  }
  return best;
}

/// What other processors would take, the least demanding last, and of each kind the first.
void Search::add_cached_variants(const std::string& name, Outcome& outcome) {
  std::vector<std::pair<std::size_t, Variant>> found;
  std::set<std::pair<std::string_view, std::uint64_t>> kinds;
  for (const std::uint32_t index : cache_->find(name)) {
    const CacheEntry& entry = cache_->entries()[index];
    const Use use = is_for_loader(entry) ? use_of(entry) : Use{};
    if (use.kind != Use::Kind::variant) continue;
    const CacheLine line = line_of(entry);
    const RootTree::Found* where = nullptr;
    const std::string path(entry.path);
    if (!is_usable(path, &where) || !kinds.emplace(entry.hwcap_name, line.hwcap).second) continue;
    found.emplace_back(use.level, Variant{path, subdirectory_of(entry), where->located, line});
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  for (auto& [level, variant] : found) outcome.variants.push_back(std::move(variant));
}

Search::Step Search::look_in_cache(const std::string& name, bool no_default_libraries, Outcome& outcome) {
  if (cache_ == nullptr) return Step::go_on;
  add_cached_variants(name, outcome);
  const CacheEntry* best = choose(name);
  if (best == nullptr) {
    outcome.tried.push_back({policy_.cache, "no entry for " + name});
    return Step::go_on;
  }
  const std::string path(best->path);
  if (no_default_libraries) {
    for (const std::string& directory : policy_.system_dirs) {
      if (path.rfind(directory, 0) != 0) continue;
      outcome.tried.push_back({path, "in a default directory, which DF_1_NODEFLIB forbids"});
      return Step::go_on;
    }
  }
  if (look(path, "ld.so.cache", outcome, true) == Step::done) {
    outcome.cached = line_of(*best);
    return Step::done;
  }
  outcome.notes.push_back(policy_.cache + " is stale: it names " + quote(path) +
                          ", which is not usable: run ldconfig");
  return Step::go_on;
}

/// The cache and the default directories: the same answer for all objects, so it is kept.
const Outcome& Search::find_by_default(const std::string& name, bool no_default_libraries) {
  auto& known = defaults_[no_default_libraries ? 1 : 0];
  const auto hit = known.find(name);
  if (hit != known.end()) return hit->second;
  Outcome outcome;
  if (look_in_cache(name, no_default_libraries, outcome) != Step::done && !no_default_libraries) {
    (void)walk(policy_.system_dirs, name, "default directory", outcome, true);
  }
  return known.emplace(name, std::move(outcome)).first->second;
}

void Search::settle_for_variant(Outcome& outcome) {
  if (outcome.kind != Outcome::Kind::missing || outcome.variants.empty()) return;
  const Variant last = outcome.variants.back();
  outcome.variants.pop_back();
  const RootTree::Found& found = store_.find(last.path);
  if (found.kind != RootTree::Kind::regular) return;
  outcome.kind = Outcome::Kind::found;
  outcome.path = last.path;
  outcome.rule = last.subdirectory;
  outcome.cached = last.cached;
  outcome.file = &store_.parsed(found);
  outcome.where = &found;
  outcome.notes.push_back(quote(last.path) +
                          " exists for some processors only: no build for all of them was found");
}

Outcome Search::find(const std::string& name, const Requester& who, bool trace) {
  Outcome outcome;
  for (const auto* rpath : who.rpaths) {
    if (walk(*rpath, name, "rpath", outcome, trace) == Step::done) return outcome;
  }
  if (who.runpath != nullptr && walk(*who.runpath, name, "runpath", outcome, trace) == Step::done)
    return outcome;
  const Outcome& common = find_by_default(name, who.no_default_libraries);
  const auto append = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  append(outcome.variants, common.variants);
  append(outcome.notes, common.notes);
  if (trace || common.kind != Outcome::Kind::found) append(outcome.tried, common.tried);
  outcome.kind = common.kind;
  outcome.path = common.path;
  outcome.rule = common.rule;
  outcome.cached = common.cached;
  outcome.reason = common.reason;
  outcome.file = common.file;
  outcome.where = common.where;
  return outcome;
}

Outcome Search::open(const std::string& path) {
  Outcome outcome;
  (void)look(path, "absolute", outcome, true);
  return outcome;
}

}  // namespace jail::elf
