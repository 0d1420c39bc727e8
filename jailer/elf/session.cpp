#include "jailer/elf/session.h"

#include <elf.h>

#include <algorithm>

#include "jailer/elf/tokens.h"
#include "supervisor/base/quote.h"

namespace jail::elf {
namespace {

constexpr std::size_t kMaxObjects = 20000;
constexpr std::size_t kMaxMissing = 100;
constexpr std::size_t kMaxNotes = 100;

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {};
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

std::string Session::chain_of(const Node* node) {
  std::string chain;
  int left = 64;
  for (; node != nullptr && left-- > 0; node = node->loader) {
    if (!chain.empty()) chain += " <- ";
    chain += escape(node->path);
  }
  return node == nullptr ? chain : chain + " <- ...";
}

void Session::note(std::string text) {
  if (notes_.size() < kMaxNotes && std::find(notes_.begin(), notes_.end(), text) == notes_.end()) {
    notes_.push_back(std::move(text));
  }
}

Tokens Session::tokens_of(const Node& node) const {
  Tokens tokens;
  if (!node.origin.empty()) tokens.origin = node.origin;
  tokens.lib = search_.policy().lib;
  if (!search_.policy().platform.empty()) tokens.platform = search_.policy().platform;
  return tokens;
}

Node& Session::add(Node node) {
  Node& added = nodes_.emplace_back(std::move(node));
  const ElfFile& elf = *added.file->elf;
  files_.emplace(added.file, &added);
  if (!elf.soname.empty()) know(elf.soname, added);
  if (elf.rpath) added.rpath = split_path(*elf.rpath, tokens_of(added));
  if (elf.runpath) added.runpath = split_path(*elf.runpath, tokens_of(added));
  return added;
}

Node& Session::start(const std::string& path, const std::string& origin_path, ParsedFile& file,
                     const RootTree::Found& where) {
  Node node;
  node.file = &file;
  node.where = &where;
  node.name = node.path = path;
  node.rule = "program";
  node.origin = directory_of(origin_path);
  program_ = &add(std::move(node));
  know("", *program_);  // ld.so's name for it: an empty DT_NEEDED asks for nothing new
  for (const std::string& audit : file.elf->audit) {
    note(quote(path) + " asks for the audit library " + quote(audit) +
         ", which ld.so would load and run; it is not in the list");
  }
  return *program_;
}

void Session::add_interpreter(const std::string& path, ParsedFile& file, const RootTree::Found& where) {
  Node node;
  node.file = &file;
  node.where = &where;
  node.name = node.path = path;
  node.rule = "interpreter";
  node.origin = directory_of(path);
  node.loader = program_;
  Node& added = add(std::move(node));
  know(path, added);
  if (file.elf->soname.empty()) know(path.substr(path.rfind('/') + 1), added);
}

/// RPATHs count only while the object has no RUNPATH; an ancestor's that has both is gone already (rules G7,
/// G8).
Requester Session::requester(const Node& by) const {
  Requester who;
  const auto has_rpath = [](const Node& node) { return !node.rpath.empty(); };
  if (!by.file->elf->runpath) {
    bool did_program = false;
    for (const Node* node = &by; node != nullptr; node = node->loader) {
      if (!has_rpath(*node)) continue;
      who.rpaths.push_back(&node->rpath);
      did_program |= node == program_;
    }
    if (!did_program && program_ != nullptr && has_rpath(*program_)) who.rpaths.push_back(&program_->rpath);
  }
  if (!by.runpath.empty()) who.runpath = &by.runpath;
  who.no_default_libraries = by.file->elf->no_default_libraries();
  return who;
}

/// What ld.so demands of a file beyond its header.
Result<void> Session::check_loadable(const Outcome& outcome, const std::string& name, const Node& by) const {
  const char* problem = nullptr;
  const ParsedFile& file = *outcome.file;
  if (!file.elf) {
    problem = file.problem.c_str();
  } else if (!file.elf->has_load) {
    problem = "object file has no loadable segments";
  } else if (file.header.type == ET_EXEC) {
    problem = "cannot dynamically load executable";
  } else if (!file.elf->has_dynamic) {
    problem = "object file has no dynamic section";
  } else if (file.elf->position_independent_program()) {
    problem = "cannot dynamically load position-independent executable";
  }
  if (problem == nullptr) return {};
  return with_hint(fail(Exit::manifest, "{}: {} (found for {}, needed by {})", quote(outcome.path), problem,
                        quote(name), chain_of(&by)),
                   file.hint.empty()
                       ? "ld.so stops here too: replace the file, or take it out of the search path"
                       : file.hint);
}

Result<Node*> Session::map(const std::string& name, Node& by, Missing& missing) {
  const auto known = names_.find(name);
  if (known != names_.end()) return known->second;
  const bool direct = name.find('/') != std::string::npos;
  Outcome outcome = direct ? search_.open(name) : search_.find(name, requester(by), trace_);
  for (const Variant& variant : outcome.variants) subdirectories_.insert(variant.subdirectory);
  if (any_processor_) search_.settle_for_variant(outcome);
  for (std::string& text : outcome.notes) note(std::move(text) + " (for " + escape(by.path) + ")");
  if (outcome.kind == Outcome::Kind::fatal) {
    return with_hint(
        fail(Exit::manifest, "{}: {} (found for {}, needed by {})", quote(outcome.path), outcome.reason,
             quote(name), chain_of(&by)),
        "ld.so stops here too, and looks no further: replace the file, or take it out of the search path");
  }
  if (outcome.kind == Outcome::Kind::missing) {
    // The long way once more, to be able to tell all places.
    if (!trace_ && !direct) outcome = search_.find(name, requester(by), true);
    missing = {name, &by, std::move(outcome.tried)};
    return nullptr;
  }
  const auto same = files_.find(outcome.file);
  if (same != files_.end()) {
    know(name, *same->second);
    return same->second;
  }
  JAIL_CHECK(check_loadable(outcome, name, by));
  if (nodes_.size() >= kMaxObjects)
    return fail(Exit::manifest, "{}: needs more than {} objects", quote(program_->path), kMaxObjects);
  Node node;
  node.file = outcome.file;
  node.where = outcome.where;
  node.name = name;
  node.path = std::move(outcome.path);
  node.rule = std::move(outcome.rule);
  node.origin = directory_of(node.path);
  node.loader = &by;
  if (trace_) node.tried = std::move(outcome.tried);
  node.variants = std::move(outcome.variants);
  Node& added = add(std::move(node));
  know(added.path, added);
  know(name, added);
  return &added;
}

/// A filtee stands before its owner in the list, moved there if it came later (dl-deps.c). `owner` keeps
/// pointing at the owner.
void Session::place_filtee(Node& filtee, Order::iterator& owner, Order& order) {
  if (!listed_.insert(&filtee).second) {
    const auto later = std::find_if(std::next(owner), order.end(),
                                    [&](const Entry& entry) { return entry.node == &filtee; });
    if (later != order.end()) order.splice(owner, order, later);
    return;
  }
  order.insert(owner, {&filtee, false});
}

Result<void> Session::add_dependency(const Dependency& dependency, Order::iterator& owner, Order& order) {
  Node& by = *owner->node;
  const bool needed = dependency.kind == Dependency::Kind::needed;
  const bool optional = dependency.kind == Dependency::Kind::auxiliary;
  std::string name = dependency.name;
  if (has_token(name)) {
    auto expanded = expand(name, tokens_of(by));
    if (!expanded || expanded->empty()) {
      if (dependency.kind != Dependency::Kind::filter) return {};  // ld.so passes over it
      return fail(Exit::manifest, "{}: {} has no value here (DT_FILTER)", quote(by.path), quote(name));
    }
    name = std::move(*expanded);
  }
  if (name == search_.policy().vdso) return {};
  Missing missing;
  auto mapped = map(name, by, missing);
  if (!mapped) {
    if (optional) return {};
    return tl::unexpected(std::move(mapped.error()));
  }
  if (*mapped == nullptr) {
    if (!optional && missing_.size() < kMaxMissing) missing_.push_back(std::move(missing));
    return {};
  }
  if (!needed) {
    place_filtee(**mapped, owner, order);
  } else if (listed_.insert(*mapped).second) {
    order.push_back({*mapped, false});
  }
  return {};
}

Result<std::vector<Node*>> Session::load_needs(Node& first) {
  Order order{{&first, false}};
  listed_ = {&first};
  for (auto next = order.begin(); next != order.end();) {
    next->done = true;
    auto owner = next;
    const bool at_front = owner == order.begin();
    const auto before = at_front ? order.begin() : std::prev(owner);
    for (const Dependency& dependency : owner->node->file->elf->dependencies) {
      JAIL_CHECK(add_dependency(dependency, owner, order));
    }
    // Filtees that went before the owner come first.
    next = at_front ? order.begin() : std::next(before);
    while (next != order.end() && next->done) ++next;
  }
  std::vector<Node*> list;
  list.reserve(order.size());
  list.push_back(&first);  // what it filters stands before it, and is told after it
  for (const Entry& entry : order) {
    if (entry.node != &first) list.push_back(entry.node);
  }
  return list;
}

Result<void> Session::check_versions(const std::vector<Node*>& objects) {
  for (const Node* object : objects) {
    for (const VersionNeed& need : object->file->elf->version_needs) {
      const auto provider = names_.find(need.file);
      if (provider == names_.end() || need.weak) continue;
      const ElfFile& elf = *provider->second->file->elf;
      if (!elf.has_version_definitions) {  // ld.so only warns
        note(fmt::format("{}: no version information available, though {} asks for version {} of it",
                         quote(provider->second->path), quote(object->path), quote(need.version)));
        continue;
      }
      const auto& defined = elf.version_definitions;
      if (std::find(defined.begin(), defined.end(), need.version) != defined.end()) continue;
      return with_hint(fail(Exit::manifest, "{}: version {} not found (required by {})",
                            quote(provider->second->path), quote(need.version), chain_of(object)),
                       "the program was built for a newer library: install the release it was built for");
    }
  }
  return {};
}

}  // namespace jail::elf
