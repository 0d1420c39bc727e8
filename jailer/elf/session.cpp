#include "jailer/elf/session.h"

#include <elf.h>

#include <algorithm>

#include "jailer/elf/isa.h"
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
  tokens.secure = mode_.secure;
  if (&node == program_ || program_ == nullptr) tokens.trusted = &search_.policy().system_dirs;
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
  Outcome outcome = direct ? search_.open(name) : search_.find(name, requester(by), mode_.trace);
  for (const Variant& variant : outcome.variants) subdirectories_.insert(variant.subdirectory);
  if (mode_.any_processor) search_.settle_for_variant(outcome);
  for (std::string& text : outcome.notes) note(std::move(text) + " (for " + escape(by.path) + ")");
  if (outcome.kind == Outcome::Kind::fatal) {
    return with_hint(
        fail(Exit::manifest, "{}: {} (found for {}, needed by {})", quote(outcome.path), outcome.reason,
             quote(name), chain_of(&by)),
        "ld.so stops here too, and looks no further: replace the file, or take it out of the search path");
  }
  if (outcome.kind == Outcome::Kind::missing) {
    // The long way once more, to be able to tell all places.
    if (!mode_.trace && !direct) outcome = search_.find(name, requester(by), true);
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
  if (mode_.trace) node.tried = std::move(outcome.tried);
  node.variants = std::move(outcome.variants);
  node.cached = std::move(outcome.cached);
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

/// The name with its tokens replaced; empty where one has no value.
Result<std::string> Session::expand_name(const Dependency& dependency, const Node& by) const {
  if (!has_token(dependency.name)) return dependency.name;
  if (mode_.secure) {
    return fail(Exit::manifest, "{}: DST not allowed in SUID/SGID programs (needed by {})",
                quote(dependency.name), chain_of(&by));
  }
  auto expanded = expand(dependency.name, tokens_of(by));
  if (expanded && !expanded->empty()) return std::move(*expanded);
  if (dependency.kind != Dependency::Kind::filter) return std::string();
  return fail(Exit::manifest, "{}: {} has no value here (DT_FILTER)", quote(by.path), quote(dependency.name));
}

Result<void> Session::add_dependency(const Dependency& dependency, Order::iterator& owner, Order& order) {
  Node& by = *owner->node;
  const bool needed = dependency.kind == Dependency::Kind::needed;
  const bool optional = dependency.kind == Dependency::Kind::auxiliary;
  JAIL_TRY(name, expand_name(dependency, by));
  const bool nameless = name.empty() && !dependency.name.empty();  // ld.so passes over it
  if (nameless || name == search_.policy().vdso) return {};
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

Result<std::vector<Node*>> Session::load_audit_library(const std::string& written) {
  const bool direct = written.find('/') != std::string::npos;
  const auto name = direct ? expand(written, tokens_of(*program_)) : written;
  if (!name) return fail(Exit::manifest, "a token in it has no value here");
  Missing missing;
  JAIL_TRY(node, map(*name, *program_, missing));
  if (node == nullptr) {
    missing_.push_back(std::move(missing));
    return std::vector<Node*>{};
  }
  return load_needs(*node);
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

Result<void> Session::check_processor(const std::vector<Node*>& objects) {
  const IsaLevels levels = isa_levels(search_.policy());
  if (levels.known == 0) return {};
  const std::uint32_t has = mode_.any_processor || !levels.told ? levels.known : levels.processor;
  const Node* highest = nullptr;
  for (const Node* object : objects) {
    const std::uint32_t needed = object->file->elf->isa_needed;
    if (object->rule == "interpreter") continue;  // ld.so does not doubt itself
    if (const std::uint32_t lacking = needed & ~has; lacking != 0) {
      return with_hint(fail(Exit::manifest, "{}: CPU ISA level is lower than required: it is for {} ({})",
                            quote(object->path), isa_name(lacking), chain_of(object)),
                       "ld.so stops here too: build it for a lower level (gcc -march=x86-64, ld -z)");
    }
    if (highest == nullptr || needed > highest->file->elf->isa_needed) highest = object;
  }
  if (highest == nullptr) return {};
  const std::uint32_t needed = highest->file->elf->isa_needed;
  if ((needed & ~levels.processor) != 0) {
    note(fmt::format(
        "{} is for processors with {} ({}): on all others ld.so stops with \"CPU ISA level is lower "
        "than required\"",
        quote(highest->path), isa_name(needed), chain_of(highest)));
  }
  return {};
}

}  // namespace jail::elf
