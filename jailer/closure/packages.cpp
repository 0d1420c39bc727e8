#include "jailer/closure/packages.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bitset>
#include <cstdint>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "jailer/closure/source_root.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

constexpr std::size_t max_file = 256U << 20U;  // of one list or of status; real ones stay below 10 MB
constexpr std::size_t first_read = 64U << 10U;

/// Calls `use` with each line of `text`, without its newline.
template <class Use>
void for_each_line(std::string_view text, Use use) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    use(text.substr(0, end));
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
  }
}

/// A whole file into `buffer`, which keeps its size from call to call: four system calls for most files.
Result<std::string_view> slurp(int dirfd, const char* name, std::string& buffer) {
  const UniqueFd fd(::openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd)
    return fail_errno(errno == ENOENT ? Exit::no_input : Exit::io, errno, "{}: cannot open", quote(name));
  std::size_t used = 0;
  while (true) {
    if (buffer.size() - used < first_read) buffer.resize(std::max(buffer.size() * 2, first_read * 4));
    const std::size_t room = buffer.size() - used;
    const ssize_t count = ::read(fd.get(), buffer.data() + used, room);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(Exit::io, errno, "{}: cannot read", quote(name));
    if (count == 0) return std::string_view(buffer.data(), used);
    used += static_cast<std::size_t>(count);
    if (used > max_file) return fail(Exit::io, "{}: larger than {} bytes", quote(name), max_file);
  }
}

/// The name of a list file: PACKAGE.list or PACKAGE:ARCH.list.
struct ListName {
  std::string file;
  std::string package;
  std::string architecture;  ///< empty where the name has none
};

std::optional<ListName> list_name(std::string_view file) {
  constexpr std::string_view suffix = ".list";
  if (file.size() <= suffix.size() || file.substr(file.size() - suffix.size()) != suffix) return std::nullopt;
  const std::string_view stem = file.substr(0, file.size() - suffix.size());
  const std::size_t colon = stem.find(':');
  ListName name{std::string(file), std::string(stem.substr(0, colon)), {}};
  if (colon != std::string_view::npos) name.architecture = stem.substr(colon + 1);
  return name;
}

/// The names in a directory, sorted.
std::vector<std::string> names_of(int fd) {
  std::vector<std::string> names;
  const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(copy < 0 ? nullptr : ::fdopendir(copy), &::closedir);
  if (!dir) {
    if (copy >= 0) ::close(copy);
    return names;
  }
  while (const dirent* entry = ::readdir(dir.get())) names.emplace_back(entry->d_name);
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<ListName> list_names(int info_fd) {
  std::vector<ListName> names;
  for (const std::string& file : names_of(info_fd))
    if (auto name = list_name(file)) names.push_back(std::move(*name));
  return names;
}

/// A path under which the answer for `asked` is found in the lists.
struct Wanted {
  std::size_t asked = 0;
  std::string only;    ///< only this package counts, if set
  std::string except;  ///< this package does not count
};

/// What is wanted, by path. A filter turns nearly all of the half million lines of dpkg away before they are
/// hashed: by their length and their last bytes.
class WantedPaths {
 public:
  void add(std::string path, Wanted wanted) {
    filter_.set(trace(path));
    wanted_.emplace(std::move(path), std::move(wanted));
  }
  /// Calls `use` with each that is wanted under `line`; `key` keeps its memory from call to call.
  template <class Use>
  void for_each(std::string_view line, std::string& key, Use use) const {
    if (!filter_.test(trace(line))) return;
    key.assign(line);
    const auto [first, last] = wanted_.equal_range(key);
    for (auto match = first; match != last; ++match) use(match->second);
  }

 private:
  static constexpr std::size_t bits = 1U << 16U;
  static std::size_t trace(std::string_view path) {
    std::uint64_t tail = path.size();
    for (const char c : path.substr(path.size() - std::min<std::size_t>(path.size(), 6)))
      tail = tail << 8U | static_cast<unsigned char>(c);
    return tail * 0x9e3779b97f4a7c15U >> 48U;
  }

  std::bitset<bits> filter_;
  std::unordered_multimap<std::string, Wanted> wanted_;
};

/// The top-level directories of `root` that are links into /usr: files of both spellings are one.
std::vector<std::string> merged_directories(const SourceRoot& root) {
  std::vector<std::string> merged;
  for (const char* name : {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/libo32"}) {
    const auto target = root.link_target(name);
    if (target && normal_path("/" + *target) == std::string("/usr") + name)
      merged.emplace_back(std::string(name) + "/");
  }
  return merged;
}

/// `path` and, where /usr is merged, its other spelling.
std::vector<std::string> spellings(const std::string& path, const std::vector<std::string>& merged) {
  std::vector<std::string> all{path};
  for (const std::string& dir : merged) {
    if (path.starts_with(dir)) all.push_back("/usr" + path);
    if (path.starts_with("/usr" + dir)) all.push_back(path.substr(4));
  }
  return all;
}

struct Diversion {
  std::string from, to, package;
};

/// dpkg's diversions: three lines each.
std::vector<Diversion> read_diversions(int dpkg_fd, std::string& buffer) {
  std::vector<Diversion> all;
  const auto text = slurp(dpkg_fd, "diversions", buffer);
  if (!text) return all;
  std::vector<std::string> lines;
  for_each_line(*text, [&](std::string_view line) { lines.emplace_back(line); });
  for (std::size_t i = 0; i + 2 < lines.size(); i += 3) all.push_back({lines[i], lines[i + 1], lines[i + 2]});
  return all;
}

WantedPaths wanted_paths(const std::vector<std::string>& paths, const std::vector<std::string>& merged,
                         const std::vector<Diversion>& diversions) {
  WantedPaths wanted;
  for (std::size_t i = 0; i < paths.size(); ++i) {
    for (const std::string& path : spellings(paths[i], merged)) {
      Wanted entry{i, {}, {}};
      std::string listed = path;
      for (const Diversion& diversion : diversions) {
        if (diversion.to == path) {  // listed under its old name, by everyone but who diverts
          listed = diversion.from;
          entry.except = diversion.package;
        } else if (diversion.from == path) {
          entry.only = diversion.package;
        }
      }
      wanted.add(std::move(listed), std::move(entry));
    }
  }
  return wanted;
}

/// The status file, and what dpkg has noted since it wrote that: it does so after a run, and its triggers are
/// run before.
std::string read_status(const SourceRoot& root, int dpkg_fd) {
  std::string buffer;
  const auto status = slurp(dpkg_fd, "status", buffer);
  std::string text(status ? *status : std::string_view());
  const auto updates = root.open_at("/var/lib/dpkg/updates", O_RDONLY | O_DIRECTORY);
  if (!updates) return text;
  for (const std::string& name : names_of(updates->get())) {
    const bool number = !name.empty() && name.find_first_not_of("0123456789") == std::string::npos;
    const auto note =
        number ? slurp(updates->get(), name.c_str(), buffer) : Result<std::string_view>(std::string_view());
    if (note && text.size() + note->size() <= 2 * max_file) text.append("\n\n").append(*note);
  }
  return text;
}

/// Calls `use(package, architecture, version)` for each installed package of the status file and what follows
/// it. Of several words about a package the last one counts.
template <class Use>
void for_each_installed(std::string_view status, Use use) {
  std::string_view package, version, architecture;
  bool installed = false;
  const auto end_of_stanza = [&] {
    if (!package.empty() && installed) use(package, architecture, version);
    package = version = architecture = {};
    installed = false;
  };
  const auto value_of = [](std::string_view line, std::string_view key) -> std::optional<std::string_view> {
    if (!line.starts_with(key)) return std::nullopt;
    line.remove_prefix(key.size());
    while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
    return line;
  };
  for_each_line(status, [&](std::string_view line) {
    if (line.empty()) return end_of_stanza();
    if (const auto text = value_of(line, "Package:")) package = *text;
    if (const auto text = value_of(line, "Version:")) version = *text;
    if (const auto text = value_of(line, "Architecture:")) architecture = *text;
    if (const auto text = value_of(line, "Status:"))
      installed = text->find("not-installed") == std::string_view::npos;
  });
  end_of_stanza();
}

/// "Version" and "Architecture" of the packages of `owners`, from the status file.
void add_versions(std::string_view status, std::map<std::string, Owner>& owners) {
  std::map<std::pair<std::string_view, std::string_view>, std::string_view> versions;
  std::map<std::string_view, std::pair<std::string_view, std::string_view>> any;
  for_each_installed(status, [&](auto package, auto architecture, auto version) {
    versions[{package, architecture}] = version;
    any[package] = {architecture, version};
  });
  for (auto& [path, owner] : owners) {
    if (const auto found = versions.find({owner.package, owner.architecture}); found != versions.end()) {
      owner.version = found->second;
    } else if (const auto one = any.find(owner.package); one != any.end()) {
      owner.architecture = one->second.first;
      owner.version = one->second.second;
    }
  }
}

}  // namespace

Result<PackageDatabase> PackageDatabase::open(const std::string& root,
                                              const std::vector<std::string>& paths) {
  PackageDatabase database;
  if (paths.empty()) return database;
  JAIL_TRY(source, SourceRoot::open(root));
  // Both within the root: a link of another root's must not lead to the lists of this host.
  const auto dpkg = source.open_at("/var/lib/dpkg", O_RDONLY | O_DIRECTORY);
  const auto info = source.open_at("/var/lib/dpkg/info", O_RDONLY | O_DIRECTORY);
  for (const auto* opened : {&dpkg, &info}) {
    if (*opened) continue;
    if (opened->error().exit == Exit::no_input) return database;
    return tl::unexpected(opened->error());
  }
  std::string buffer;
  const auto diversions = read_diversions(dpkg->get(), buffer);
  const WantedPaths wanted = wanted_paths(paths, merged_directories(source), diversions);
  std::string key;
  for (const ListName& list : list_names(info->get())) {
    const auto text = slurp(info->get(), list.file.c_str(), buffer);
    if (!text && text.error().exit == Exit::no_input) continue;  // removed since the directory was read
    if (!text) return tl::unexpected(text.error());
    for_each_line(*text, [&](std::string_view line) {
      wanted.for_each(line, key, [&](const Wanted& entry) {
        if ((!entry.only.empty() && entry.only != list.package) || entry.except == list.package) return;
        database.owners_.try_emplace(paths[entry.asked], Owner{list.package, {}, list.architecture});
      });
    });
  }
  add_versions(read_status(source, dpkg->get()), database.owners_);
  return database;
}

Result<std::map<std::string, std::string>> installed_versions(const std::string& root) {
  JAIL_TRY(source, SourceRoot::open(root));
  std::map<std::string, std::string> versions;
  const auto dpkg = source.open_at("/var/lib/dpkg", O_RDONLY | O_DIRECTORY);
  if (!dpkg && dpkg.error().exit == Exit::no_input) return versions;
  if (!dpkg) return tl::unexpected(dpkg.error());
  const std::string status = read_status(source, dpkg->get());
  for_each_installed(status, [&](auto package, auto architecture, auto version) {
    versions.insert_or_assign(fmt::format("{}:{}", package, architecture), version);
    versions.insert_or_assign(std::string(package), version);
  });
  return versions;
}

std::optional<Owner> PackageDatabase::owner(const std::string& path) const {
  const auto found = owners_.find(path);
  if (found == owners_.end()) return std::nullopt;
  return found->second;
}

}  // namespace jail
