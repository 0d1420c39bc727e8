#include "jailer/elf/resolver.h"

#include <elf.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <string_view>
#include <unordered_set>

#include "jailer/elf/remembered.h"
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
  Impl(RootTree tree, Looks* its_looks) : store(std::move(tree)), looks(its_looks) {}

  FileStore store;
  Looks* looks;
  std::optional<Remembered> remembered;  ///< where it is wanted
  std::string watched;                   ///< a hash of the symbols, for that
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
  [[nodiscard]] static Object describe(Node& node, const LoaderPolicy& policy);
  [[nodiscard]] Result<Closure> describe(const Session& session, const LoaderPolicy& policy,
                                         const std::vector<Node*>& objects, Detail detail);
  [[nodiscard]] Result<void> collect_imports(const std::vector<Node*>& objects, Closure& closure);
  struct Wanted {
    const std::string& library;
    const std::string& by;
  };
  struct Question {
    const std::string& path;
    const Wanted* wanted;
    Detail detail;
    bool secure = false;  ///< as for a user who gains by starting it
  };
  struct Start {
    Program program;
    const RootTree::Found* loader = nullptr;
    std::string interpreter;
    Search* search = nullptr;
  };
  [[nodiscard]] Result<Start> prepare(const Question& question);
  [[nodiscard]] static Session session_for(const Question& question, const Start& start);
  Node& seat(Session& session, const Question& question, const Start& start);
  [[nodiscard]] Result<Closure> run(const Question& question, std::set<Capabilities>* others);
  void add_audit_libraries(const Question& question, const Start& start, Closure& closure);
  void add_other_processors(Question question, const std::set<Capabilities>& others, Closure& closure);
  void note_secure_start(Question question, Closure& closure);
  [[nodiscard]] Result<Closure> run_everywhere(const Question& question);
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
  // Before its parts: of a core file or a kernel module those are not what they are in a program.
  const Verdict verdict = judge(file.header, file.header.abi);
  if (file.header.magic && file.header.complete && verdict.kind != Verdict::Kind::take)
    return fail(Exit::manifest, "{}: {}", quote(path), verdict.reason);
  if (!file.elf) {
    return with_hint(fail(Exit::manifest, "{}: {}", quote(path), file.problem),
                     file.header.magic ? file.hint : hint_for_script(*where));
  }
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
    const std::string& problem = slot->second->problem();
    if (!problem.empty())
      notes.push_back(path + ": " + problem +
                      ": ld.so takes no build for some processors from it, nor do we");
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

Object Resolver::Impl::describe(Node& node, const LoaderPolicy& policy) {
  Object object;
  object.name = node.name;
  object.path = node.path;
  object.file = node.where->located;
  object.soname = node.file->elf->soname;
  if (node.loader != nullptr) object.needed_by = node.loader->path;
  object.rule = node.rule;
  object.in_default_directory = policy.has_system_dir(node.path.substr(0, node.path.rfind('/') + 1));
  object.tried = std::move(node.tried);
  object.variants = std::move(node.variants);
  object.cached = std::move(node.cached);
  object.dlopen_notes = node.file->elf->dlopen_notes;
  return object;
}

Result<Closure> Resolver::Impl::describe(const Session& session, const LoaderPolicy& policy,
                                         const std::vector<Node*>& objects, Detail detail) {
  Closure closure;
  if (!policy.cache_flags.empty()) closure.cache_flags = policy.cache_flags.front();
  closure.big_endian = policy.abi.data == ELFDATA2MSB;
  closure.objects.reserve(objects.size());
  for (Node* node : objects) closure.objects.push_back(describe(*node, policy));
  closure.notes = session.notes();
  closure.notes.insert(closure.notes.end(), notes.begin(), notes.end());
  if (detail.imports) JAIL_CHECK(collect_imports(objects, closure));
  return closure;
}

Result<Resolver::Impl::Start> Resolver::Impl::prepare(const Question& question) {
  Start start;
  JAIL_TRY(program, open_program(question.path));
  start.program = program;
  const ElfFile& elf = *program.file->elf;
  if (elf.interpreter) {
    JAIL_TRY(found, find_interpreter(question.path, elf));
    start.loader = found;
    start.interpreter = *elf.interpreter;
  } else {
    start.interpreter = default_policy(elf.header.abi).interpreter;
    const RootTree::Found& found = store.find(start.interpreter.empty() ? "/" : start.interpreter);
    if (found.kind == RootTree::Kind::regular) start.loader = &found;
  }
  static const Capabilities baseline;
  const Detail& detail = question.detail;
  start.search = &search_for(elf.header.abi, start.interpreter,
                             detail.processor != nullptr ? *detail.processor : baseline);
  return start;
}

Session Resolver::Impl::session_for(const Question& question, const Start& start) {
  const Detail& detail = question.detail;
  return {*start.search, {detail.tried, detail.processor == nullptr, question.secure}};
}

Node& Resolver::Impl::seat(Session& session, const Question& question, const Start& start) {
  const Program& program = start.program;
  const std::string& real = program.where->located.real;
  // The kernel tells a program its own path with all links resolved (/proc/self/exe); a library's stays as
  // found.
  const bool linked = program.file->elf->interpreter.has_value();
  Node& first = session.start(question.path, linked ? real : question.path, *program.file, *program.where);
  if (start.loader != nullptr && start.loader->located.real != real) {
    ParsedFile& file = store.parsed(*start.loader);
    if (file.elf) session.add_interpreter(start.interpreter, file, *start.loader);
  }
  return first;
}

/// The closure of a program, or of what it would get from a dlopen of what is wanted, on one processor.
/// `others`: those that would load variants.
Result<Closure> Resolver::Impl::run(const Question& question, std::set<Capabilities>* others) {
  JAIL_TRY(start, prepare(question));
  Session session = session_for(question, start);
  Node& first = seat(session, question, start);
  std::vector<Node*> objects{&first};
  if (!start.program.is_static) {
    JAIL_TRY(list, load(session, first));
    objects = std::move(list);
  }
  if (const Wanted* wanted = question.wanted) {
    Missing missing;
    const auto caller = std::find_if(objects.begin(), objects.end(),
                                     [&](const Node* object) { return object->path == wanted->by; });
    JAIL_TRY(node, session.map(wanted->library, caller == objects.end() ? first : **caller, missing));
    if (node == nullptr) return fail_missing({missing});
    JAIL_TRY(list, load(session, *node));
    objects = std::move(list);
  }
  JAIL_CHECK(session.check_versions(objects));
  JAIL_CHECK(session.check_processor(objects));
  const LoaderPolicy& policy = start.search->policy();
  JAIL_TRY(closure, describe(session, policy, objects, question.detail));
  closure.is_static = start.program.is_static;
  if (start.program.file->elf->interpreter) {
    closure.interpreter = start.interpreter;
    closure.interpreter_file = start.loader->located;
    if (question.wanted == nullptr && !question.secure) add_audit_libraries(question, start, closure);
  }
  if (others != nullptr) {
    for (const std::string& name : session.subdirectories()) others->insert(capabilities_for(policy, name));
  }
  return std::move(closure);
}

void Resolver::Impl::add_audit_libraries(const Question& question, const Start& start, Closure& closure) {
  std::unordered_set<std::string> known;
  for (const Object& object : closure.objects) known.insert(object.path);
  for (const std::string& name : start.program.file->elf->audit) {
    Session session = session_for(question, start);
    seat(session, question, start);
    auto list = session.load_audit_library(name);
    if (!session.missing().empty()) list = fail_missing(session.missing());
    const auto checked = list ? session.check_versions(*list) : Result<void>{};
    if (!list || !checked) {
      closure.notes.push_back(fmt::format(
          "{}: its audit library {} cannot be loaded, which ld.so says at each start, and goes on: {}",
          quote(question.path), quote(name), (list ? checked.error() : list.error()).message));
      continue;
    }
    closure.notes.push_back(fmt::format("{}: its audit library {} is {}: ld.so loads it and runs its code",
                                        quote(question.path), quote(name), quote(list->front()->path)));
    for (Node* node : *list) {
      if (node->rule == "interpreter" || !known.insert(node->path).second) continue;
      closure.audit.push_back(describe(*node, start.search->policy()));
    }
  }
}

/// What the processors that would load variants need besides.
void Resolver::Impl::add_other_processors(Question question, const std::set<Capabilities>& others,
                                          Closure& closure) {
  std::unordered_set<std::string> known;
  for (const Object& object : closure.objects) {
    known.insert(object.path);
    for (const Variant& variant : object.variants) known.insert(variant.path);
  }
  for (const Capabilities& processor : others) {
    question.detail.processor = &processor;
    auto more = run(question, nullptr);
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
}

/// What ld.so does otherwise for a user who gains by starting the program (rule G19).
void Resolver::Impl::note_secure_start(Question question, Closure& closure) {
  const mode_t mode = store.find(question.path).mode;
  const bool set_id = (mode & S_ISUID) != 0 || (mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP);
  if (!set_id || closure.interpreter.empty()) return;
  question.secure = true;
  question.detail.imports = question.detail.tried = false;
  const auto secure = run(question, nullptr);
  const std::string who =
      quote(question.path) + " is set-user-ID or set-group-ID: for a user who gains by that ";
  if (!secure) {
    closure.notes.push_back(who + "it would not start: " + secure.error().message);
    return;
  }
  const auto [now, then] =
      std::mismatch(closure.objects.begin(), closure.objects.end(), secure->objects.begin(),
                    secure->objects.end(), [](const Object& a, const Object& b) { return a.path == b.path; });
  if (now == closure.objects.end() && then == secure->objects.end()) return;
  closure.notes.push_back(who + fmt::format("ld.so would load {} where it loads {} for others",
                                            then == secure->objects.end() ? "nothing" : quote(then->path),
                                            now == closure.objects.end() ? "nothing" : quote(now->path)));
}

Result<Closure> Resolver::Impl::run_everywhere(const Question& question) {
  if (question.detail.processor != nullptr) return run(question, nullptr);
  std::set<Capabilities> others;
  JAIL_TRY(closure, run(question, &others));
  add_other_processors(question, others, closure);
  if (question.wanted == nullptr && question.detail.set_id) note_secure_start(question, closure);
  return std::move(closure);
}

Resolver::Resolver(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Resolver::Resolver(Resolver&&) noexcept = default;
Resolver& Resolver::operator=(Resolver&&) noexcept = default;
Resolver::~Resolver() = default;

Result<Resolver> Resolver::open(const std::string& root, Looks* looks) {
  JAIL_TRY(tree, RootTree::open(root, looks));
  return Resolver(std::make_unique<Impl>(std::move(tree), looks));
}

void Resolver::watch(Symbols symbols) {
  std::vector<std::string_view> sorted(symbols.begin(), symbols.end());
  std::sort(sorted.begin(), sorted.end());
  impl_->watched = fmt::format("{}", fmt::join(sorted, " "));
  impl_->store.watch(std::move(symbols));
}

void Resolver::recall(std::string_view memory) {
  if (impl_->looks == nullptr) return;
  impl_->remembered.emplace();
  impl_->remembered->recall(memory, impl_->watched, *impl_->looks);
}

std::string Resolver::memory() const {
  return impl_->remembered ? impl_->remembered->to_text(impl_->watched, *impl_->looks) : std::string();
}

template <class Work>
Result<Closure> Resolver::by_heart(const std::string& question, const Detail& detail, const Work& work) {
  // A list for one processor, or one with all that was tried, is nobody's but the caller's.
  const bool usual = impl_->remembered && !detail.tried && detail.processor == nullptr;
  if (!usual) return work();
  const std::string whole =
      fmt::format("{} {}{}", question, detail.imports ? 'i' : '-', detail.set_id ? 's' : '-');
  if (const Closure* known = impl_->remembered->closure(whole)) return *known;
  auto found = work();
  if (found) impl_->remembered->add(whole, *found);
  return found;
}

Result<Closure> Resolver::resolve(const std::string& path, Detail detail) {
  return by_heart(path, detail, [&] { return impl_->run_everywhere({path, nullptr, detail}); });
}

Result<Closure> Resolver::resolve_library(const std::string& soname_or_path, const std::string& for_path,
                                          Detail detail, const std::string& by) {
  if (soname_or_path.empty()) return fail(Exit::usage, "a library needs a name");
  const std::string question = fmt::format("{}\n{}\n{}", for_path, soname_or_path, by);
  return by_heart(question, detail, [&] {
    const Impl::Wanted wanted{soname_or_path, by};
    return impl_->run_everywhere({for_path, &wanted, detail});
  });
}

Result<LoaderPolicy> Resolver::policy(const std::string& for_path) {
  if (impl_->remembered)
    if (const LoaderPolicy* known = impl_->remembered->policy(for_path)) return *known;
  JAIL_TRY(program, impl_->open_program(for_path));
  const ElfFile& elf = *program.file->elf;
  const std::string interpreter = elf.interpreter.value_or(default_policy(elf.header.abi).interpreter);
  const LoaderPolicy& policy = impl_->search_for(elf.header.abi, interpreter, {}).policy();
  if (impl_->remembered) impl_->remembered->add(for_path, policy);
  return policy;
}

Result<Located> Resolver::locate(const std::string& path) const {
  const RootTree::Found& found = impl_->store.find(path);
  if (found.kind != RootTree::Kind::missing) return found.located;
  if (found.error == EINVAL) return fail(Exit::usage, "{}: not an absolute path", quote(path));
  return fail_errno(Exit::no_input, found.error, "{}", quote(path));
}

}  // namespace jail::elf
