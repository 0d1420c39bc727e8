#include "jailer/init/example.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "jailer/manifest/problems.h"
#include "jailer/manifest/search.h"
#include "jailer/manifest/toml_file.h"
#include "jailer/tree/root_dir.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail::init {
namespace {

constexpr const char* description = "init.toml";
constexpr std::size_t max_file = 1UL << 20U;

/// A file of the example, from inside of its folder.
Result<std::string> read_below(const tree::RootDir& folder, const std::string& path) {
  const std::string shown = folder.shown("/" + path);
  const UniqueFd fd = folder.beneath(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (!fd)
    return fail_errno(errno == ENOENT ? Exit::no_input : Exit::io, errno,
                      "{}: cannot open the example's file", shown);
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(Exit::io, errno, "{}: cannot stat", shown);
  if (!S_ISREG(status.st_mode)) return fail(Exit::config, "{}: not a regular file", shown);
  return read_all(fd.get(), max_file, shown);
}

/// "web@eu" has the example of "web@".
std::string folder_name(const std::string& jail) {
  return jail.substr(0, std::min(jail.find('@'), jail.size() - 1) + 1);
}

Result<tree::RootDir> find_folder(const Instance& instance, const std::string& name_or_path) {
  JAIL_TRY(located, manifest::locate(instance, name_or_path));
  const std::string name = folder_name(located.name);
  const std::string beside = std::filesystem::path(located.file.path).parent_path().string();
  const std::string places[] = {(beside.empty() ? "." : beside) + "/examples/" + name,
                                JAIL_DATA_DIR "/examples/" + name};
  for (const std::string& place : places) {
    const std::string file = place + "/" + description;
    struct stat status {};
    if (::stat(file.c_str(), &status) == 0) return tree::RootDir::open(place);
    if (errno != ENOENT && errno != ENOTDIR) return fail_errno(Exit::io, errno, "{}", quote(file));
  }
  return with_hint(
      fail(Exit::no_input, "{}: no example configuration comes with this manifest (looked for {}/{}, {}/{})",
           located.name, places[0], description, places[1], description),
      fmt::format("write the configuration yourself; jail show {} names where it is read from",
                  located.name));
}

Result<void> read_contents(const tree::RootDir& folder, Example& example) {
  for (const ExampleFile& file : example.files) {
    if (file.text) {
      example.contents.push_back(*file.text);
      continue;
    }
    JAIL_TRY(content, read_below(folder, file.from.empty() ? file.path : file.from));
    example.contents.push_back(std::move(content));
  }
  if (example.drop_in.empty()) return {};
  JAIL_TRY(text, read_below(folder, example.drop_in));
  example.drop_in_text = std::move(text);
  return {};
}

}  // namespace

Result<Example> load_example(const Instance& instance, const std::string& name_or_path,
                             const manifest::Manifest& manifest) {
  JAIL_TRY(folder, find_folder(instance, name_or_path));
  JAIL_TRY(text, read_below(folder, description));
  const std::string shown = folder.name() + "/" + description;
  manifest::Problems problems;
  Example example;
  example.folder = folder.name();
  const auto value = manifest::parse_toml(text, shown, problems);
  const manifest::Key keys = example_keys();
  manifest::Binder binder(problems, keys, true);
  if (value) bind_example(binder, example, *value);
  if (!problems.empty()) return tl::unexpected(problems.error(""));
  const bool known = std::any_of(manifest.configs.begin(), manifest.configs.end(),
                                 [&](const manifest::Config& config) { return config.to == example.config; });
  if (!example.config.empty() && !known)
    return with_hint(
        fail(Exit::manifest, "{}: config: {} is not the place of any [[config]] of the manifest {}",
             quote(shown), quote(example.config), manifest.name),
        fmt::format("jail show {} lists them", manifest.name));
  JAIL_CHECK(read_contents(folder, example));
  return example;
}

Result<std::string> fill_in(std::string_view text, const std::vector<Word>& words, const std::string& shown) {
  std::string out;
  while (!text.empty()) {
    const std::size_t at = text.find('@');
    out += text.substr(0, at);
    if (at == std::string_view::npos) break;
    text.remove_prefix(at + 1);
    const std::size_t end = std::min(text.find_first_not_of("abcdefghijklmnopqrstuvwxyz_"), text.size());
    if (end == 0 || end == text.size() || text[end] != '@') {
      out += '@';
      continue;
    }
    const std::string_view name = text.substr(0, end);
    const auto word =
        std::find_if(words.begin(), words.end(), [&](const Word& each) { return each.name == name; });
    if (word == words.end()) return fail(Exit::manifest, "{}: @{}@ stands for nothing", shown, name);
    out += word->value;
    text.remove_prefix(end + 1);
  }
  return out;
}

}  // namespace jail::init
