#include "jailer/elf/resolver.h"

#include <elf.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <string_view>
#include <unordered_set>

#include "jailer/elf/script.h"
#include "jailer/elf/session.h"
#include "supervisor/base/quote.h"

namespace jail::elf {
namespace {

constexpr std::size_t kMaxLoaderBytes = std::size_t{16} << 20;
constexpr std::size_t kMaxCacheBytes = std::size_t{64} << 20;
constexpr std::size_t kMaxPlacesTold = 16;
constexpr std::size_t kMaxMissingTold = 8;

/// A program, checked as far as the kernel and ld.so check it before they load anything.
struct Program {
  const RootTree::Found* where = nullptr;
  ParsedFile* file = nullptr;
  bool is_static = false;
};

std::string tell(const Missing& missing) {
  std::string text = fmt::format("{} not found, needed by {}; looked at: ", escape(missing.name),
                                 Session::chain_of(missing.needed_by));
  if (missing.tried.empty()) text += "nothing (it has no search path)";
  for (std::size_t i = 0; i < missing.tried.size(); ++i) {
    if (i == kMaxPlacesTold) {
      text += fmt::format(", and {} more places", missing.tried.size() - i);
      break;
    }
    const Tried& tried = missing.tried[i];
    text += fmt::format("{}{} ({})", i == 0 ? "" : ", ", escape(tried.path), escape(tried.outcome));
  }
  return text;
}

/// `fatal`: what ended the search, if it did not come to its end.
tl::unexpected<Error> fail_missing(const std::vector<Missing>& all, const Error* fatal = nullptr) {
  std::string text;
  for (std::size_t i = 0; i < all.size() && i < kMaxMissingTold; ++i) {
    if (i > 0) text += "\n  ";
    text += tell(all[i]);
  }
  if (all.size() > kMaxMissingTold) text += fmt::format("\n  and {} more", all.size() - kMaxMissingTold);
  if (fatal != nullptr) text += "\n  " + fatal->message;
  return with_hint(
      fail(Exit::no_input, "{}", text),
      fmt::format(
          "install the package that ships {}, or put its directory into /etc/ld.so.conf.d and run ldconfig",
          escape(all.front().name)));
}

std::string key_of(const Abi& abi, const std::string& interpreter) {
  return fmt::format("{} {} {} {}", abi.elf_class, abi.data, abi.machine, interpreter);
}

/// Both are sorted and without doubles, and so is the result.
void merge_sorted(std::vector<std::string>& to, const std::vector<std::string>& from) {
  const auto middle = static_cast<std::ptrdiff_t>(to.size());
  to.insert(to.end(), from.begin(), from.end());
  std::inplace_merge(to.begin(), to.begin() + middle, to.end());
  to.erase(std::unique(to.begin(), to.end()), to.end());
}

/// All that `first` needs. What is missing comes before what is broken: ld.so would stop there.
Result<std::vector<Node*>> load(Session& session, Node& first) {
  auto list = session.load_needs(first);
  if (!session.missing().empty()) return fail_missing(session.missing(), list ? nullptr : &list.error());
  return list;
}

}  // namespace

struct Resolver::Impl {
  explicit Impl(RootTree tree) : store(std::move(tree)) {}

  FileStore store;
  std::map<std::pair<std::string, bool>, std::unique_ptr<LdCache>> caches;
  std::map<std::string, LoaderPolicy> policies;             ///< by ABI and loader
  std::map<std::string, std::unique_ptr<Search>> searches;  ///< the same, and by processor
  std::vector<std::string> notes;

  [[nodiscard]] Result<const RootTree::Found*> regular(const std::string& path);
  [[nodiscard]] Result<Program> open_program(const std::string& path);
  [[nodiscard]] std::string hint_for_script(const RootTree::Found& where);
  [[nodiscard]] Result<const RootTree::Found*> find_interpreter(const std::string& path, const ElfFile& elf);
  [[nodiscard]] const LoaderPolicy& policy_for(const Abi& abi, const std::string& interpreter);
  [[nodiscard]] Search& search_for(const Abi& abi, const std::string& interpreter,
                                   const Capabilities& processor);
  [[nodiscard]] const LdCache* cache_for(const std::string& path, bool big_endian);
  [[nodiscard]] Result<Closure> describe(const Session& session, const LoaderPolicy& policy,
                                         const std::vector<Node*>& objects, Detail detail);
  [[nodiscard]] Result<void> collect_imports(const std::vector<Node*>& objects, Closure& closure);
  struct Wanted {
    const std::string& library;
    const std::string& by;
  };
  [[nodiscard]] Result<Closure> run(const std::string& path, const Wanted* wanted, Detail detail,
                                    std::set<Capabilities>* others);
  [[nodiscard]] Result<Closure> run_everywhere(const std::string& path, const Wanted* wanted, Detail detail);
};

Result<const RootTree::Found*> Resolver::Impl::regular(const std::string& path) {
  const RootTree::Found& found = store.find(path);
  if (found.kind == RootTree::Kind::regular) return &found;
  if (found.kind == RootTree::Kind::missing) {
    if (found.error == EINVAL) return fail(Exit::usage, "{}: not an absolute path", quote(path));
    return fail_errno(Exit::no_input, found.error, "{}", quote(path));
  }
  return fail(Exit::no_input, "{}: {}", quote(path),
              found.kind == RootTree::Kind::directory ? "is a directory" : "not a regular file");
}

std::string Resolver::Impl::hint_for_script(const RootTree::Found& where) {
  const auto bytes = store.beginning(where);
  const auto script = bytes ? parse_script(*bytes) : std::optional<Script>{};
  if (!script) return script.error().message;
  return *script ? fmt::format("it is a script for {}: ask for that", quote((*script)->interpreter))
                 : std::string{};
}

Result<Program> Resolver::Impl::open_program(const std::string& path) {
  Program program;
  JAIL_TRY(where, regular(path));
  program.where = where;
  program.file = &store.parsed(*where);
  const ParsedFile& file = *program.file;
  if (!file.elf) {
    return with_hint(fail(Exit::manifest, "{}: {}", quote(path), file.problem),
                     file.header.magic ? file.hint : hint_for_script(*where));
  }
  const Verdict verdict = judge(file.header, file.header.abi);
  if (verdict.kind != Verdict::Kind::take) return fail(Exit::manifest, "{}: {}", quote(path), verdict.reason);
  const ElfFile& elf = *file.elf;
  if (!elf.has_load) return fail(Exit::manifest, "{}: object file has no loadable segments", quote(path));
  program.is_static = !elf.interpreter &&
                      (!elf.has_dynamic || file.header.type == ET_EXEC || elf.position_independent_program());
  return program;
}

Result<const RootTree::Found*> Resolver::Impl::find_interpreter(const std::string& path, const ElfFile& elf) {
  const std::string& interpreter = *elf.interpreter;
  if (interpreter.empty() || interpreter[0] != '/') {
    return with_hint(fail(Exit::manifest, "{}: its interpreter {} is not an absolute path", quote(path),
                          quote(interpreter)),
                     "the kernel would look for it in the current directory: link the program anew");
  }
  const RootTree::Found& found = store.find(interpreter);
  if (found.kind != RootTree::Kind::regular) {
    return with_hint(
        fail(Exit::no_input, "{}: its interpreter {} does not exist", quote(path), quote(interpreter)),
        "install the C library that it was linked with (for Debian: dpkg -S of that path on a machine that "
        "has it)");
  }
  ParsedFile& loader = store.parsed(found);
  if (!loader.elf || judge(loader.header, elf.header.abi).kind != Verdict::Kind::take) {
    return fail(Exit::manifest, "{}: its interpreter {} is not a loader for its class and machine",
                quote(path), quote(interpreter));
  }
  if (interpreter.find("/ld-musl-") != std::string::npos) {
    return with_hint(fail(Exit::host, "{}: is linked with musl ({}), whose search rules are not known here",
                          quote(path), quote(interpreter)),
                     "use the glibc build of the program, or list its libraries in the manifest");
  }
  return &found;
}

const LdCache* Resolver::Impl::cache_for(const std::string& path, bool big_endian) {
  const auto [slot, fresh] = caches.try_emplace({path, big_endian});
  if (!fresh) return slot->second.get();
  const RootTree::Found& found = store.find(path);
  if (found.kind != RootTree::Kind::regular) return nullptr;
  auto bytes = store.contents(found, kMaxCacheBytes);
  auto cache = bytes ? LdCache::parse(std::move(*bytes), big_endian) : tl::unexpected(bytes.error());
  if (cache) {
    slot->second = std::make_unique<LdCache>(std::move(*cache));
  } else {
    notes.push_back(cache.error().message + ": ld.so passes over it, and so do we");
  }
  return slot->second.get();
}

const LoaderPolicy& Resolver::Impl::policy_for(const Abi& abi, const std::string& interpreter) {
  const auto [slot, fresh] = policies.try_emplace(key_of(abi, interpreter));
  if (!fresh) return slot->second;
  std::string loader;
  if (!interpreter.empty()) {
    const RootTree::Found& found = store.find(interpreter);
    if (found.kind == RootTree::Kind::regular) {
      auto bytes = store.contents(found, kMaxLoaderBytes);
      if (bytes) loader = std::move(*bytes);
    }
  }
  return slot->second = read_policy(abi, loader);
}

Search& Resolver::Impl::search_for(const Abi& abi, const std::string& interpreter,
                                   const Capabilities& processor) {
  const auto [slot, fresh] =
      searches.try_emplace(fmt::format("{} {}", key_of(abi, interpreter), fmt::join(processor, ":")));
  if (!fresh) return *slot->second;
  LoaderPolicy policy = for_processor(policy_for(abi, interpreter), processor);
  const LdCache* cache = cache_for(policy.cache, abi.data == ELFDATA2MSB);
  slot->second = std::make_unique<Search>(store, std::move(policy), cache);
  return *slot->second;
}

Result<void> Resolver::Impl::collect_imports(const std::vector<Node*>& objects, Closure& closure) {
  std::unordered_set<std::string_view> names;  // into the store, which outlives this
  for (const Node* node : objects) {
    auto imports = store.imports(*node->file);
    if (!imports) {
      return with_hint(fail(imports.error().exit, "{}: {}", quote(node->path), imports.error().message),
                       imports.error().hint);
    }
    names.insert((*imports)->begin(), (*imports)->end());
  }
  closure.imports.assign(names.begin(), names.end());
  std::sort(closure.imports.begin(), closure.imports.end());
  return {};
}

Result<Closure> Resolver::Impl::describe(const Session& session, const LoaderPolicy& policy,
                                         const std::vector<Node*>& objects, Detail detail) {
  Closure closure;
  if (!policy.cache_flags.empty()) closure.cache_flags = policy.cache_flags.front();
  closure.big_endian = policy.abi.data == ELFDATA2MSB;
  closure.objects.reserve(objects.size());
  for (Node* node : objects) {
    Object object;
    object.name = node->name;
    object.path = node->path;
    object.file = node->where->located;
    object.soname = node->file->elf->soname;
    if (node->loader != nullptr) object.needed_by = node->loader->path;
    object.rule = node->rule;
    object.in_default_directory = policy.has_system_dir(node->path.substr(0, node->path.rfind('/') + 1));
    object.tried = std::move(node->tried);
    object.variants = std::move(node->variants);
    object.dlopen_notes = node->file->elf->dlopen_notes;
    closure.objects.push_back(std::move(object));
  }
  closure.notes = session.notes();
  closure.notes.insert(closure.notes.end(), notes.begin(), notes.end());
  if (detail.imports) JAIL_CHECK(collect_imports(objects, closure));
  return closure;
}

/// The closure of `path`, or of what the program at `path` would get from a dlopen of what is wanted, on one
/// processor. `others`: those that would load variants.
Result<Closure> Resolver::Impl::run(const std::string& path, const Wanted* wanted, Detail detail,
                                    std::set<Capabilities>* others) {
  JAIL_TRY(program, open_program(path));
  const ElfFile& elf = *program.file->elf;
  const RootTree::Found* loader = nullptr;
  std::string interpreter;
  if (elf.interpreter) {
    JAIL_TRY(found, find_interpreter(path, elf));
    loader = found;
    interpreter = *elf.interpreter;
  } else {
    interpreter = default_policy(elf.header.abi).interpreter;
    const RootTree::Found& found = store.find(interpreter.empty() ? "/" : interpreter);
    if (found.kind == RootTree::Kind::regular) loader = &found;
  }
  static const Capabilities baseline;
  Search& search =
      search_for(elf.header.abi, interpreter, detail.processor != nullptr ? *detail.processor : baseline);
  Session session(search, detail.tried, detail.processor == nullptr);
  // The kernel tells a program its own path with all links resolved (/proc/self/exe); a library's stays as
  // found.
  Node& first = session.start(path, elf.interpreter ? program.where->located.real : path, *program.file,
                              *program.where);
  if (loader != nullptr && loader->located.real != program.where->located.real) {
    ParsedFile& file = store.parsed(*loader);
    if (file.elf) session.add_interpreter(interpreter, file, *loader);
  }
  std::vector<Node*> objects{&first};
  if (!program.is_static) {
    JAIL_TRY(list, load(session, first));
    objects = std::move(list);
  }
  if (wanted != nullptr) {
    Missing missing;
    const auto caller = std::find_if(objects.begin(), objects.end(),
                                     [&](const Node* object) { return object->path == wanted->by; });
    JAIL_TRY(node, session.map(wanted->library, caller == objects.end() ? first : **caller, missing));
    if (node == nullptr) return fail_missing({missing});
    JAIL_TRY(list, load(session, *node));
    objects = std::move(list);
  }
  JAIL_CHECK(session.check_versions(objects));
  JAIL_TRY(closure, describe(session, search.policy(), objects, detail));
  closure.is_static = program.is_static;
  if (elf.interpreter) {
    closure.interpreter = interpreter;
    closure.interpreter_file = loader->located;
  }
  if (others != nullptr) {
    for (const std::string& name : session.subdirectories())
      others->insert(capabilities_for(search.policy(), name));
  }
  return std::move(closure);
}

/// As run(), for the baseline; and what the processors that would load variants need besides.
Result<Closure> Resolver::Impl::run_everywhere(const std::string& path, const Wanted* wanted, Detail detail) {
  if (detail.processor != nullptr) return run(path, wanted, detail, nullptr);
  std::set<Capabilities> others;
  JAIL_TRY(closure, run(path, wanted, detail, &others));
  if (others.empty()) return std::move(closure);
  std::unordered_set<std::string> known;
  for (const Object& object : closure.objects) {
    known.insert(object.path);
    for (const Variant& variant : object.variants) known.insert(variant.path);
  }
  for (const Capabilities& processor : others) {
    detail.processor = &processor;
    auto more = run(path, wanted, detail, nullptr);
    if (!more) {
      closure.notes.push_back(fmt::format("on processors with {} it would not start: {}",
                                          fmt::join(processor, ", "), more.error().message));
      continue;
    }
    for (Object& object : more->objects) {
      if (known.insert(object.path).second) closure.elsewhere.push_back(std::move(object));
    }
    merge_sorted(closure.imports, more->imports);
    for (std::string& note : more->notes) {
      if (std::find(closure.notes.begin(), closure.notes.end(), note) == closure.notes.end())
        closure.notes.push_back(std::move(note));
    }
  }
  return std::move(closure);
}

Resolver::Resolver(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Resolver::Resolver(Resolver&&) noexcept = default;
Resolver& Resolver::operator=(Resolver&&) noexcept = default;
Resolver::~Resolver() = default;

Result<Resolver> Resolver::open(const std::string& root, Looks* looks) {
  JAIL_TRY(tree, RootTree::open(root, looks));
  return Resolver(std::make_unique<Impl>(std::move(tree)));
}

void Resolver::watch(Symbols symbols) {
  impl_->store.watch(std::move(symbols));
}

Result<Closure> Resolver::resolve(const std::string& path, Detail detail) {
  return impl_->run_everywhere(path, nullptr, detail);
}

Result<Closure> Resolver::resolve_library(const std::string& soname_or_path, const std::string& for_path,
                                          Detail detail, const std::string& by) {
  if (soname_or_path.empty()) return fail(Exit::usage, "a library needs a name");
  const Impl::Wanted wanted{soname_or_path, by};
  return impl_->run_everywhere(for_path, &wanted, detail);
}

Result<LoaderPolicy> Resolver::policy(const std::string& for_path) {
  JAIL_TRY(program, impl_->open_program(for_path));
  const ElfFile& elf = *program.file->elf;
  const std::string interpreter = elf.interpreter.value_or(default_policy(elf.header.abi).interpreter);
  return impl_->search_for(elf.header.abi, interpreter, {}).policy();
}

Result<Located> Resolver::locate(const std::string& path) const {
  const RootTree::Found& found = impl_->store.find(path);
  if (found.kind != RootTree::Kind::missing) return found.located;
  if (found.error == EINVAL) return fail(Exit::usage, "{}: not an absolute path", quote(path));
  return fail_errno(Exit::no_input, found.error, "{}", quote(path));
}

}  // namespace jail::elf
