#include "jailer/tree/secrets.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "jailer/tree/attributes_json.h"
#include "jailer/tree/lock_reader.h"
#include "jailer/tree/lock_text.h"
#include "jailer/tree/remove_tree.h"
#include "supervisor/base/io.h"

namespace jail::tree {
namespace {

using nlohmann::json;

constexpr std::size_t max_file = 256UL << 20U;
constexpr const char* version_key = "version";
constexpr const char* files_key = "files";
constexpr const char* xattrs_key = "xattrs";

bool is_hash(const json& value) {
  if (!value.is_string()) return false;
  const auto& text = value.get_ref<const std::string&>();
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

/// What secrets.json has of one file; false if it is not as it must be.
bool read_secret(const json& value, LockEntry& entry) {
  if (!value.is_object() || !value.contains("sha256") || !is_hash(value["sha256"]) ||
      !value.contains("size") || !value["size"].is_number_unsigned())
    return false;
  const auto xattrs = value.find(xattrs_key);
  if (value.size() != (xattrs == value.end() ? 2 : 3)) return false;
  entry.xattrs.clear();
  if (xattrs != value.end()) {
    auto read = attributes_from_json(*xattrs);
    if (!read) return false;
    entry.xattrs = std::move(*read);
  }
  entry.sha256 = value["sha256"].get<std::string>();
  entry.size = value["size"].get<std::uint64_t>();
  return true;
}

void overwrite(int fd) {
  struct stat status {};
  // Another name of it is somebody else's.
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_nlink != 1) return;
  const std::string zeros(64UL << 10U, '\0');
  for (off_t at = 0; at < status.st_size;) {
    const auto size = std::min<std::size_t>(zeros.size(), static_cast<std::size_t>(status.st_size - at));
    const ssize_t put = ::pwrite(fd, zeros.data(), size, at);
    if (put <= 0) return;
    at += put;
  }
  (void)::fdatasync(fd);
}

}  // namespace

std::string secrets_json(const Lock& lock) {
  json files = json::object();
  for (const LockEntry& entry : lock.entries) {
    if (!is_secret_file(entry)) continue;
    json& file = files[to_text(entry.path)] = {{"sha256", entry.sha256}, {"size", entry.size}};
    if (!entry.xattrs.empty()) file[xattrs_key] = attributes_json(entry.xattrs);
  }
  if (files.empty()) return {};
  return json{{version_key, 1}, {files_key, std::move(files)}}.dump(1) + "\n";
}

Result<void> add_secrets(Lock& lock, std::string_view text, std::string_view name) {
  const auto bad = [&] {
    return with_hint(fail(Exit::manifest, "{}: does not fit the lock beside it", name), new_lock);
  };
  const json object = json::parse(text, nullptr, false);
  if (!object.is_object() || object.size() != 2 || !object.contains(version_key) ||
      object[version_key] != 1 || !object.contains(files_key) || !object[files_key].is_object())
    return bad();
  const json& files = object[files_key];
  std::size_t found = 0;
  for (LockEntry& entry : lock.entries) {
    if (!is_secret_file(entry)) continue;
    const auto at = files.find(to_text(entry.path));
    if (at == files.end() || !read_secret(*at, entry)) return bad();
    ++found;
  }
  if (found != files.size()) return bad();
  return {};
}

void wipe_secrets(int files, const RootDir& tree) {
  const auto text = read_file_at(files, generation::lock, max_file, false);
  // Most have none: then the lock need not be understood.
  if (!text || text->find("\"secret\":true") == std::string::npos) return;
  const auto lock = read_lock(*text, generation::lock);
  if (!lock) return;
  for (const LockEntry& entry : lock->entries) {
    if (!is_secret_file(entry)) continue;
    const UniqueFd fd = tree.beneath(entry.path, O_WRONLY | O_NONBLOCK | O_NOCTTY);
    if (fd) overwrite(fd.get());
  }
}

void wipe_generations(int generations, std::string_view prefix) {
  const auto names = names_in(generations, "gen");
  if (!names) return;
  constexpr int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  for (const std::string& name : *names) {
    if (!name.starts_with(prefix)) continue;
    const UniqueFd dir(::openat(generations, name.c_str(), flags));
    UniqueFd tree(dir ? ::openat(dir.get(), generation::tree, flags) : -1);
    if (tree) wipe_secrets(dir.get(), RootDir(std::move(tree), name));
  }
}

}  // namespace jail::tree
