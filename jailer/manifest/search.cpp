#include "jailer/manifest/search.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "jailer/manifest/reader.h"
#include "jailer/manifest/suggest.h"
#include "supervisor/base/quote.h"

namespace jail::manifest {
namespace {

constexpr std::string_view suffix = ".toml";

enum class State { absent, there, masked };

State state_of(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return State::absent;
  if (!S_ISLNK(status.st_mode)) return State::there;
  if (::stat(path.c_str(), &status) != 0) return State::there;  // a dangling link: reading it says so
  return S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3) ? State::masked : State::there;
}

// The names of DIR/*.toml, without hidden ones; none if there is no such directory.
std::vector<std::string> toml_files(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator at(directory, error), end; !error && at != end;
       at.increment(error)) {
    std::string name = at->path().filename().string();
    if (name.ends_with(suffix) && name.size() > suffix.size() && name.front() != '.')
      names.push_back(std::move(name));
  }
  return names;
}

struct Candidate {
  std::string path;
  State state;
};

// The strongest DIRECTORY/FILE. A masked one hides the weaker.
Candidate strongest(const Instance& instance, const std::string& file) {
  for (auto directory = instance.manifest_dirs.rbegin(); directory != instance.manifest_dirs.rend();
       ++directory) {
    std::string path = *directory + "/" + file;
    const State state = state_of(path);
    if (state != State::absent) return {std::move(path), state};
  }
  return {{}, State::absent};
}

std::string looked_in(const Instance& instance, const std::string& below) {
  std::string text = "looked in";
  const char* before = " ";
  for (auto directory = instance.manifest_dirs.rbegin(); directory != instance.manifest_dirs.rend();
       ++directory) {
    text += before + *directory + below;
    before = ", ";
  }
  return text;
}

// Adds the drop-ins of one directory; a file of the same name that was there before is masked by it.
void add_drop_ins(const std::string& directory, const std::string& shown,
                  std::map<std::string, Place>& drop_ins) {
  for (const std::string& name : toml_files(directory)) {
    const std::string path = directory + "/" + name;
    if (state_of(path) == State::masked) {
      drop_ins.erase(name);
    } else {
      drop_ins[name] = {path, shown + "/" + name};
    }
  }
}

// NAME@INSTANCE has the drop-ins of the template and, stronger, those of its own.
std::vector<std::string> drop_in_names(const Located& located) {
  if (located.instance.empty()) return {located.name + ".toml.d"};
  return {located.name.substr(0, located.name.find('@') + 1) + ".toml.d", located.name + ".toml.d"};
}

void find_drop_ins(const Instance& instance, const std::optional<std::string>& beside, Located& located) {
  std::map<std::string, Place> drop_ins;
  for (const std::string& name : drop_in_names(located))
    for (const std::string& directory : instance.manifest_dirs)
      add_drop_ins(directory + "/" + name, name, drop_ins);
  if (beside) add_drop_ins(*beside, *beside, drop_ins);
  for (auto& [name, place] : drop_ins) located.drop_ins.push_back(std::move(place));
}

std::string template_instance(const std::string& name) {
  const std::size_t at = name.find('@');
  return at == std::string::npos ? std::string() : name.substr(at + 1);
}

// "web@eu" is read from "web@.toml".
std::string file_of(const std::string& name) {
  const std::size_t at = name.find('@');
  return (at == std::string::npos ? name : name.substr(0, at + 1)) + std::string(suffix);
}

Result<Located> locate_path(const Instance& instance, const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? std::string() : path.substr(0, slash + 1);
  std::string name = path.substr(directory.size());
  if (name.ends_with(suffix)) name.resize(name.size() - suffix.size());
  if (!valid_name(name))
    return with_hint(fail(Exit::manifest, "{}: {} cannot be the name of a jail", quote(path), quote(name)),
                     name.ends_with('@') ? "name an instance of this template: " + name + "INSTANCE.toml"
                                         : "lower-case letters, digits, '.', '_' and '-', 64 bytes at most");
  Located located;
  located.name = name;
  located.instance = template_instance(name);
  const std::string file = path.ends_with(suffix) ? directory + file_of(name) : path;
  located.file = {file, file};
  if (state_of(file) == State::absent)
    return fail(Exit::no_input, "{}: there is no such manifest", quote(file));
  find_drop_ins(instance, file + ".d", located);
  return located;
}

Result<Located> locate_name(const Instance& instance, const std::string& name) {
  if (!valid_name(name))
    return with_hint(fail(Exit::usage, "{} cannot be the name of a jail", quote(name)),
                     "lower-case letters, digits, '.', '_' and '-', 64 bytes at most; a path holds a '/'");
  Located located;
  located.name = name;
  located.instance = template_instance(name);
  const std::string file = file_of(name);
  const Candidate found = strongest(instance, file);
  if (found.state == State::masked)
    return with_hint(fail(Exit::no_input, "{}: this manifest is disabled", name),
                     fmt::format("{} is a link to /dev/null: remove it to enable the manifest", found.path));
  if (found.state == State::absent)
    return with_hint(fail(Exit::no_input, "{}: there is no manifest {}{}", name, file,
                          did_you_mean(name, names(instance))),
                     looked_in(instance, ""));
  located.file = {found.path, file};
  find_drop_ins(instance, std::nullopt, located);
  return located;
}

}  // namespace

bool is_path(const std::string& name_or_path) {
  return name_or_path.find('/') != std::string::npos || name_or_path.ends_with(suffix);
}

Result<Located> locate(const Instance& instance, const std::string& name_or_path) {
  if (name_or_path.find('\0') != std::string::npos)
    return fail(Exit::usage, "{} holds a NUL byte", quote(name_or_path));
  return is_path(name_or_path) ? locate_path(instance, name_or_path) : locate_name(instance, name_or_path);
}

Result<Place> locate_data(const Instance& instance, const std::string& kind, const std::string& name,
                          const std::string& what) {
  // The name may come from anywhere: only one that cannot leave the directory is looked up.
  const bool good = valid_name(name) && name.find('@') == std::string::npos;
  const Candidate found =
      good ? strongest(instance, kind + "/" + name + std::string(suffix)) : Candidate{{}, State::absent};
  if (found.state == State::there) return Place{found.path, kind + "/" + name + std::string(suffix)};
  return with_hint(fail(Exit::no_input, "there is no {} {}{}", what, quote(name),
                        did_you_mean(name, list_data(instance, kind))),
                   found.state == State::masked ? found.path + " is a link to /dev/null"
                                                : looked_in(instance, "/" + kind));
}

std::vector<std::string> list_data(const Instance& instance, const std::string& kind) {
  std::set<std::string> known;
  for (const std::string& directory : instance.manifest_dirs) {
    const std::string below = kind.empty() ? directory : directory + "/" + kind;
    for (const std::string& file : toml_files(below)) {
      const std::string name = file.substr(0, file.size() - suffix.size());
      if (!valid_name(name) || name.find('@') != std::string::npos) continue;
      if (state_of(below + "/" + file) == State::masked) {
        known.erase(name);
      } else {
        known.insert(name);
      }
    }
  }
  return {known.begin(), known.end()};
}

namespace {

/// A directory of *.toml, and each of them: a link, and what it leads to.
void add_directory(const std::string& directory, Looks& looks) {
  looks.add(directory, LookAt::directory);
  for (const std::string& file : toml_files(directory)) {
    looks.add(directory + "/" + file, LookAt::entry);
    looks.add(directory + "/" + file, LookAt::file);
  }
}

}  // namespace

void add_looks(const Instance& instance, const std::string& name, Looks& looks) {
  Located located;
  located.name = name;
  located.instance = template_instance(name);
  for (const std::string& directory : instance.manifest_dirs) {
    for (const LookAt how : {LookAt::entry, LookAt::file}) looks.add(directory + "/" + file_of(name), how);
    for (const std::string& drop_ins : drop_in_names(located))
      add_directory(directory + "/" + drop_ins, looks);
    for (const char* kind : {"bundles", "syscalls"}) add_directory(directory + "/" + kind, looks);
  }
}

std::vector<std::string> names(const Instance& instance) {
  return list_data(instance, "");
}

}  // namespace jail::manifest
