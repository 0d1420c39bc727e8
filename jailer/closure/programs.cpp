// Programs and libraries: ELF closures with their loader, scripts with their interpreters.
#include <algorithm>
#include <array>

#include "jailer/closure/work.h"
#include "jailer/elf/script.h"
#include "jailer/elf/tokens.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

constexpr std::size_t script_line = 256;  // BINPRM_BUF_SIZE: what the kernel reads of a "#!" line
constexpr int max_interpreters = 5;       // scripts whose interpreters are scripts; the kernel's limit
constexpr std::array<const char*, 6> path_directories = {"/usr/local/sbin", "/usr/local/bin", "/usr/sbin",
                                                         "/usr/bin",        "/sbin",          "/bin"};
// Nothing in a tree is set-id.
constexpr elf::Detail lean{.imports = true, .tried = false, .set_id = false};

std::vector<std::string> words(const std::string& line) {
  std::vector<std::string> all;
  std::size_t at = 0;
  while ((at = line.find_first_not_of(" \t", at)) != std::string::npos) {
    const std::size_t end = std::min(line.find_first_of(" \t", at), line.size());
    all.push_back(line.substr(at, end - at));
    at = end;
  }
  return all;
}

/// The program that `#!/usr/bin/env ...` runs: the first word that is no option and no assignment.
std::string env_program(const std::vector<std::string>& line) {
  for (const std::string& word : line) {
    if (!word.starts_with("-") && word.find('=') == std::string::npos) return word;
  }
  return {};
}

void plan_interpreter(Work& work, const std::string& script, const Place& place, int depth);

/// A script's interpreter or an ELF's closure; `real` is the path in the source root.
void plan_content(Work& work, const std::string& real, const std::string& tree_path, const Place& place,
                  int depth) {
  if (!work.programs.insert(real).second) return;
  const std::string head = work.source.head(real, script_line);
  if (head.starts_with("#!")) {
    plan_interpreter(work, real, place, depth);
  } else if (head.starts_with("\x7f"
                              "ELF")) {
    plan_needs(work, real, tree_path, place);
  } else {
    work.out.problem(place, fmt::format("{}: neither an ELF program nor a script with \"#!\"", quote(real)));
  }
}

void plan_named_interpreter(Work& work, const std::string& path, const std::string& script,
                            const std::string& detail, const Place& place, int depth) {
  const auto located = work.resolver.locate(path);
  if (!located) {
    work.out.problem(
        place, fmt::format("{}: interpreter {}: {}", quote(script), quote(path), located.error().message));
    return;
  }
  const std::string tree_path = plan_located(work, *located, {"script", script, detail}, place);
  if (!tree_path.empty()) plan_content(work, located->real, tree_path, place, depth + 1);
}

void plan_interpreter(Work& work, const std::string& script, const Place& place, int depth) {
  if (depth >= max_interpreters) {
    work.out.problem(place,
                     fmt::format("{}: more than {} interpreters deep", quote(script), max_interpreters));
    return;
  }
  const auto parsed = elf::parse_script(work.source.head(script, script_line));
  if (!parsed) return work.out.problem(place, fmt::format("{}: {}", quote(script), parsed.error().message));
  if (!*parsed) return;
  const std::string& interpreter = (*parsed)->interpreter;
  if (interpreter.front() != '/') {
    work.out.problem(
        place, fmt::format("{}: interpreter {} is not an absolute path", quote(script), quote(interpreter)));
    return;
  }
  plan_named_interpreter(work, interpreter, script, interpreter, place, depth);
  if (base_name(interpreter) != "env") return;
  const std::string name = env_program(words((*parsed)->argument));
  if (name.empty()) return;
  for (const char* dir : path_directories) {
    const std::string path = name.front() == '/' ? name : std::string(dir) + "/" + name;
    if (!work.source.status(path)) continue;
    return plan_named_interpreter(work, path, script, interpreter + " " + name, place, depth);
  }
  work.out.problem(place, fmt::format("{}: {} finds no {} in {}", quote(script), interpreter, quote(name),
                                      fmt::join(path_directories, ":")));
}

/// Tree path of one object that a program's closure has besides the program; empty after a problem. `paths`:
/// as ld.so lists it -> in the tree.
std::string plan_object(Work& work, const elf::Object& object, const std::string& start,
                        std::map<std::string, std::string>& paths, const Place& place) {
  const auto needer = paths.find(object.needed_by);
  const std::string by = needer == paths.end() ? start : needer->second;
  const Reason why{object.rule == "interpreter" ? "interpreter" : "needed", by, object.name};
  std::string tree_path = plan_located(work, object.file, why, place);
  if (!tree_path.empty()) paths[object.path] = tree_path;
  return tree_path;
}

/// Keeps what ld.so finds through its cache alone. With one build of a library all go there, or the cache
/// would hide those that stand in a default directory.
void note_cached(Work& work, const elf::Object& object, const elf::Closure& closure,
                 const std::string& tree_path) {
  const auto keep = [&](const std::string& path, const std::optional<elf::CacheLine>& line) {
    if (!line) return;
    work.cached.try_emplace({object.name, path},
                            CachedLibrary{path, *line, tree_path, closure.cache_flags, closure.big_endian});
  };
  const bool varies = std::any_of(object.variants.begin(), object.variants.end(),
                                  [](const elf::Variant& variant) { return variant.cached.has_value(); });
  if (object.in_default_directory && !varies) return;
  keep(object.path, object.cached);
  for (const elf::Variant& variant : object.variants) keep(variant.path, variant.cached);
}

/// The builds of a library for newer processors beside it: all of them, since a jail may move to another
/// machine.
void plan_variants(Work& work, const elf::Object& object, const std::string& tree_path,
                   std::map<std::string, std::string>& paths, const Place& place) {
  for (const elf::Variant& variant : object.variants) {
    const std::string detail = object.name + " (" + variant.subdirectory + ")";
    paths[variant.path] = plan_located(work, variant.file, {"needed", tree_path, detail}, place);
  }
}

/// Remembers what an object says of its dlopens, once: the libraries of many programs are the same.
void listen(Work& work, const elf::Closure& closure, const elf::Object& object, const std::string& tree_path,
            const Place& place) {
  if (object.dlopen_notes.empty() || !work.heard.insert(object.file.real).second) return;
  work.callers.push_back({closure.objects.front().path, object.path, tree_path, object.dlopen_notes, place});
}

/// The objects of a closure that the program itself asked for; `start` is the tree path of its first object.
void plan_closure(Work& work, const elf::Closure& closure, const std::string& start, const Place& place) {
  std::map<std::string, std::string> tree_paths;  // as ld.so lists it -> in the tree
  std::string loader;
  if (closure.interpreter_file) {
    loader =
        plan_located(work, *closure.interpreter_file, {"interpreter", start, closure.interpreter}, place);
  }
  for (const elf::Object& object : closure.objects) {
    if (&object == &closure.objects.front()) {
      tree_paths[object.path] = start;
      listen(work, closure, object, start, place);
      continue;
    }
    const std::string tree_path = plan_object(work, object, start, tree_paths, place);
    if (tree_path.empty()) continue;
    listen(work, closure, object, tree_path, place);
    plan_variants(work, object, tree_path, tree_paths, place);
    note_cached(work, object, closure, tree_path);
  }
  for (const elf::Object& object : closure.elsewhere) {
    const std::string tree_path = plan_object(work, object, start, tree_paths, place);
    if (!tree_path.empty()) note_cached(work, object, closure, tree_path);
  }
  for (const elf::Object& object : closure.audit) {
    const std::string tree_path = plan_object(work, object, start, tree_paths, place);
    if (tree_path.empty()) continue;
    plan_variants(work, object, tree_path, tree_paths, place);
    note_cached(work, object, closure, tree_path);
  }
  for (const std::string& note : closure.notes) work.out.warn(place, note);
  for (const std::string& symbol : closure.imports) work.imports.try_emplace(symbol, start);
}

}  // namespace

std::string plan_located(Work& work, const elf::Located& file, const Reason& why, const Place& place) {
  const auto status = work.source.status(file.real);
  if (!status) {
    work.out.problem(place, status.error());
    return {};
  }
  if (!S_ISREG(status->st_mode)) {
    work.out.problem(place, fmt::format("{}: not a regular file", quote(file.path)));
    return {};
  }
  for (const elf::Hop& hop : file.hops)
    work.out.put_link(hop.path, hop.target, {"link", file.real, {}}, place);
  Entry entry;
  entry.path = file.real;
  entry.mode = status->st_mode & 0755U;
  entry.source = file.real;
  entry.why.push_back(why);
  return work.out.put(std::move(entry), place);
}

void plan_needs(Work& work, const std::string& real, const std::string& tree_path, const Place& place) {
  const auto closure = work.resolver.resolve(real, lean);
  if (!closure) return work.out.problem(place, closure.error());
  if (work.first_program.empty() && (!closure->interpreter.empty() || closure->is_static))
    work.first_program = real;
  plan_closure(work, *closure, tree_path, place);
  if (closure->interpreter.empty()) return;
  std::vector<std::string> files;
  files.reserve(closure->objects.size());
  for (const elf::Object& object : closure->objects) files.push_back(object.file.real);
  work.out.closure(tree_path, std::move(files));
}

std::string plan_program(Work& work, const std::string& path, const Reason& why, const Place& place) {
  const auto located = work.resolver.locate(path);
  if (!located) {
    work.out.problem(place, located.error());
    return {};
  }
  std::string tree_path = plan_located(work, *located, why, place);
  if (tree_path.empty()) return tree_path;
  const Entry* entry = work.out.find(tree_path);
  if (entry != nullptr && (entry->mode & 0111U) == 0)
    work.out.problem(place, fmt::format("{}: not executable (mode {:04o})", quote(path), entry->mode));
  plan_content(work, located->real, tree_path, place, 0);
  return tree_path;
}

std::string plan_found_library(Work& work, const elf::Closure& closure, const Reason& why,
                               const Place& place) {
  if (closure.objects.empty()) return {};
  const elf::Object& library = closure.objects.front();
  std::string tree_path = plan_located(work, library.file, why, place);
  if (tree_path.empty()) return tree_path;
  std::map<std::string, std::string> paths;
  plan_variants(work, library, tree_path, paths, place);
  note_cached(work, library, closure, tree_path);
  plan_closure(work, closure, tree_path, place);
  return tree_path;
}

std::string plan_library(Work& work, const std::string& written, const Reason& why, const Place& place) {
  const auto name = with_lib(work, written, place);
  if (!name) return {};
  if (work.first_program.empty() && name->find('/') == std::string::npos) {
    work.out.problem(place,
                     fmt::format("library {}: no ELF program in tree.binaries to find it for; write its "
                                 "absolute path",
                                 quote(*name)));
    return {};
  }
  const auto closure = work.resolver.resolve_library(*name, work.first_program, lean);
  if (closure) return plan_found_library(work, *closure, why, place);
  work.out.problem(place, closure.error());
  return {};
}

std::optional<std::string> with_lib(Work& work, const std::string& path, const Place& place) {
  if (path.find('$') == std::string::npos) return path;
  if (work.first_program.empty()) {
    work.out.problem(place,
                     fmt::format("{}: no ELF program in tree.binaries tells what $LIB is", quote(path)));
    return std::nullopt;
  }
  const auto policy = work.resolver.policy(work.first_program);
  if (!policy) {
    work.out.problem(place, policy.error());
    return std::nullopt;
  }
  auto expanded = elf::expand(path, {{}, policy->lib, {}});
  if (!expanded)
    work.out.problem(place, fmt::format("{}: $LIB is the only word that is known here", quote(path)));
  return expanded;
}

}  // namespace jail
