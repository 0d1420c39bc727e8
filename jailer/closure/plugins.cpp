#include "jailer/closure/plugins.h"

#include <fcntl.h>
#include <fnmatch.h>

#include <algorithm>
#include <cctype>

#include "jailer/closure/plugin_syntax.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

constexpr std::size_t max_config_files = 256;
constexpr std::size_t max_config_size = std::size_t{1} << 20U;

/// A file as the jail will see it.
struct ConfigFile {
  ConfigText text;
  std::string entry;  ///< its path in the tree; empty for one that is bound live
};

/// Where a path of the jail lies on the host when a live configuration shows it; empty: none does.
std::string live_source(const Work& work, const std::string& path) {
  for (const manifest::Config& config : work.manifest.configs)
    if (is_at_or_below(path, config.to)) return config.from + path.substr(config.to.size());
  return {};
}

bool is_pattern(const std::string& path) {
  return path.find_first_of("*?[") != std::string::npos;
}

/// All files of a configuration, those that are included behind those that include them.
class Reader {
 public:
  Reader(Work& work, const PluginSyntax& syntax, const Place& place)
      : work_(work), syntax_(syntax), place_(place) {}

  std::vector<ConfigFile> read(const std::vector<std::string>& paths) {
    for (const std::string& path : paths) add(path, nullptr);
    for (std::size_t i = 0; i < files_.size(); ++i) {
      const ConfigFile from = files_[i];  // a copy: the list grows
      for (const std::string& path : syntax_.includes(from.text)) add(normal_path(path), &from);
    }
    return std::move(files_);
  }

 private:
  /// A file, all files of a directory, or those that a pattern names.
  void add(const std::string& path, const ConfigFile* includer) {
    if (path.find("/../") != std::string::npos || files_.size() >= max_config_files) return;
    bring_along(path, includer);
    const bool pattern = is_pattern(path);
    const std::string directory = pattern ? parent_path(path) : path;
    const auto names = pattern || !add_file(path) ? names_in(directory) : std::vector<std::string>();
    for (const std::string& name : names)
      if (!pattern || ::fnmatch(base_name(path).c_str(), name.c_str(), FNM_PERIOD) == 0)
        if (files_.size() < max_config_files) add_file(directory + "/" + name);
  }

  /// A part of what is frozen in the tree is frozen with it.
  void bring_along(const std::string& path, const ConfigFile* includer) {
    if (includer == nullptr || includer->entry.empty() || is_pattern(path)) return;
    if (work_.out.find(work_.out.follow(path).path) != nullptr || !work_.source.status(path)) return;
    if (!live_source(work_, path).empty()) return;
    manifest::File file;
    file.to = path;
    file.from = path;
    plan_file(work_, file, {"plugin", includer->entry, "included"}, place_);
  }

  bool add_file(const std::string& path) {
    if (!seen_.insert(path).second) return true;
    const std::string live = live_source(work_, path);
    const std::string inside = live.empty() ? work_.out.follow(path).path : std::string();
    const Entry* entry = live.empty() ? work_.out.find(inside) : nullptr;
    Result<std::string> text = fail(Exit::no_input, " ");
    if (entry != nullptr && entry->type == EntryType::file)
      text = entry->content ? *entry->content : work_.source.read(entry->source, max_config_size);
    else if (!live.empty())
      text = work_.source.read(live, max_config_size);
    if (!text) return false;
    files_.push_back({{path, std::move(*text)}, inside});
    return true;
  }

  std::vector<std::string> names_in(const std::string& directory) const {
    const std::string live = live_source(work_, directory);
    if (live.empty()) return work_.out.names_in(work_.out.follow(directory).path);
    return work_.source.names(live).value_or(std::vector<std::string>());
  }

  Work& work_;
  const PluginSyntax& syntax_;
  const Place& place_;
  std::vector<ConfigFile> files_;
  std::set<std::string> seen_;
};

/// "NAME:" as a word in one of the files, outside of comments.
bool is_used(Work& work, const std::vector<std::string>& paths, const std::string& name) {
  const PluginSyntax plain{"", [](const ConfigText&) { return std::vector<std::string>(); }, nullptr};
  for (const ConfigFile& file : Reader(work, plain, "").read(paths)) {
    const std::string& text = file.text.text;
    const std::string wanted = name + ":";
    for (std::size_t at = text.find(wanted); at != std::string::npos; at = text.find(wanted, at + 1)) {
      const std::size_t line = text.rfind('\n', at) + 1;
      const bool comment = text.find_first_not_of(" \t", line) == text.find('#', line) && text[line] == '#';
      const char before = at == 0 ? ' ' : text[at - 1];
      const bool word =
          std::isalnum(static_cast<unsigned char>(before)) == 0 && before != '_' && before != '-';
      if (word && !comment) return true;
    }
  }
  return false;
}

/// The module's path or soname; empty where the host has none.
std::string find_module(Work& work, const manifest::Plugins& plugins, const PluginName& name,
                        const Place& place) {
  std::string path = name.file;
  if (!path.starts_with('/')) {
    path = plugins.object;
    if (const std::size_t at = path.find("{}"); at != std::string::npos) path.replace(at, 2, name.file);
    const auto expanded = with_lib(work, path, place);
    if (!expanded) return {};
    path = *expanded;
  }
  if (!path.starts_with('/')) return path.find('/') == std::string::npos ? path : std::string();
  path = normal_path(path);
  if (!is_pattern(plugins.object)) return work.source.status(path) ? path : std::string();
  const auto names = work.source.names(parent_path(path));
  if (!names) return {};
  const auto found = std::find_if(names->begin(), names->end(), [&](const std::string& file) {
    return ::fnmatch(base_name(path).c_str(), file.c_str(), FNM_PERIOD) == 0;
  });
  return found == names->end() ? std::string() : parent_path(path) + "/" + *found;
}

bool good_name(const PluginName& name) {
  const auto odd = [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '*' || c == '?' || c == '$';
  };
  return !name.file.empty() && name.file.size() <= 255 && name.file.find("..") == std::string::npos &&
         std::none_of(name.file.begin(), name.file.end(), odd);
}

void say_notes(Work& work, const manifest::Plugins& plugins, const std::string& word) {
  for (const std::string& note : plugins.notes)
    if (note.starts_with(word + ": ")) work.out.note(note);
}

std::vector<FoundPlugin> plan_family(Work& work, const manifest::Plugins& plugins,
                                     std::set<std::string>& done, const Place& place) {
  std::vector<FoundPlugin> found;
  const PluginSyntax* syntax = plugin_syntax(plugins.syntax);
  if (syntax == nullptr) {
    work.out.problem(place,
                     fmt::format("a bundle's plugins have the syntax {}, which is not known; known: {}",
                                 quote(plugins.syntax), fmt::join(plugin_syntaxes(), ", ")));
    return found;
  }
  const auto files = Reader(work, *syntax, place).read(plugins.config);
  std::vector<ConfigText> texts;
  for (const ConfigFile& file : files) texts.push_back(file.text);
  for (const PluginName& name : syntax->names(texts)) {
    if (std::find(plugins.builtin.begin(), plugins.builtin.end(), name.word) != plugins.builtin.end())
      continue;
    if (!good_name(name) || !done.insert(plugins.syntax + " " + name.file).second) continue;
    if (!plugins.used_in.empty() && !is_used(work, plugins.used_in, name.word)) continue;
    const ConfigFile& from = files.at(name.from);
    const std::string path = find_module(work, plugins, name, place);
    const Reason why{"plugin", from.entry, fmt::format("{} of {}", name.word, from.text.path)};
    const std::string in_tree = path.empty() ? path : plan_library(work, path, why, place);
    if (!in_tree.empty()) {
      found.push_back({name.word, path});
      say_notes(work, plugins, name.word);
    } else if (path.empty() && !name.optional) {
      work.out.warn(place, fmt::format("{} names {}, whose module is not on this host", quote(from.text.path),
                                       quote(name.word)));
    }
  }
  return found;
}

}  // namespace

std::vector<FoundPlugin> plan_plugins(Work& work, const manifest::Bundle& bundle, std::set<std::string>& done,
                                      const Place& place) {
  // Who wrote the configuration may have meant a service that is not here.
  const PlanBuilder::Lenient lenient(work.out);
  std::vector<FoundPlugin> all;
  for (const manifest::Plugins& plugins : bundle.plugins) {
    const auto found = plan_family(work, plugins, done, place);
    all.insert(all.end(), found.begin(), found.end());
  }
  return all;
}

}  // namespace jail
