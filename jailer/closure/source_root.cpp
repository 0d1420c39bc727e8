#include "jailer/closure/source_root.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

Exit exit_of(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return Exit::no_input;
    case EACCES:
    case EPERM:
      return Exit::permission;
    default:
      return Exit::io;
  }
}

/// os-release(5): KEY=value, KEY="value" or KEY='value'. What is no plain word is left out.
void os_release_value(std::string_view line, std::string_view key, std::string& value) {
  if (!line.starts_with(key)) return;
  line.remove_prefix(key.size());
  if (line.size() >= 2 && (line.front() == '"' || line.front() == '\'') && line.back() == line.front())
    line = line.substr(1, line.size() - 2);
  constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  if (line.find_first_not_of(plain) == std::string_view::npos) value = line;
}

}  // namespace

Result<SourceRoot> SourceRoot::open(const std::string& path, Looks* looks) {
  SourceRoot root;
  root.looks_ = looks;
  root.path_ = path;
  root.fd_.reset(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root.fd_) return fail_errno(exit_of(errno), errno, "{}: cannot open the root directory", quote(path));
  return root;
}

/// Notes what `fd` is, or that nothing was there where errno says so.
void SourceRoot::note(const std::string& path, LookAt how, int fd) const {
  if (looks_ == nullptr) return;
  struct stat status {};
  if (fd >= 0 && ::fstat(fd, &status) == 0)
    looks_->add(path, how, &status);
  else if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
    looks_->add(path, how, nullptr);
  else
    looks_->spoil();
}

Result<UniqueFd> SourceRoot::open_at(const std::string& path, int flags) const {
  open_how how{};
  how.flags =
      static_cast<__u64>(static_cast<unsigned>(flags | O_CLOEXEC | ((flags & O_PATH) != 0 ? 0 : O_NONBLOCK)));
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const char* name = path == "/" ? "." : path.c_str();
  for (int attempt = 0;; ++attempt) {
    UniqueFd fd(static_cast<int>(::syscall(SYS_openat2, fd_.get(), name, &how, sizeof how)));
    if (fd) {
      note(path, (flags & O_NOFOLLOW) != 0 ? LookAt::entry : LookAt::file, fd.get());
      return fd;
    }
    // EAGAIN: something was renamed while the kernel walked a "..".
    if (errno == EINTR || (errno == EAGAIN && attempt < 64)) continue;
    const int error = errno;
    note(path, (flags & O_NOFOLLOW) != 0 ? LookAt::entry : LookAt::file, -1);
    return fail_errno(exit_of(error), error, "{}", quote(path));
  }
}

Result<struct stat> SourceRoot::status(const std::string& path, bool follow) const {
  JAIL_TRY(fd, open_at(path, O_PATH | (follow ? 0 : O_NOFOLLOW)));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(Exit::io, errno, "{}: cannot stat", quote(path));
  return status;
}

Result<std::string> SourceRoot::read(const std::string& path, std::size_t limit) const {
  JAIL_TRY(fd, open_at(path, O_RDONLY | O_NOCTTY));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(Exit::io, errno, "{}: cannot stat", quote(path));
  if (!S_ISREG(status.st_mode)) return fail(Exit::io, "{}: not a regular file", quote(path));
  return read_all(fd.get(), limit, path);
}

std::string SourceRoot::head(const std::string& path, std::size_t count) const {
  const auto fd = open_at(path, O_RDONLY | O_NOCTTY);
  struct stat status {};
  if (!fd || ::fstat(fd->get(), &status) != 0 || !S_ISREG(status.st_mode)) return {};
  std::string bytes(count, '\0');
  const ssize_t got = ::pread(fd->get(), bytes.data(), count, 0);
  bytes.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
  return bytes;
}

Result<std::string> SourceRoot::link_target(const std::string& path) const {
  JAIL_TRY(fd, open_at(path, O_PATH | O_NOFOLLOW));
  char target[4096];
  const ssize_t size = ::readlinkat(fd.get(), "", target, sizeof target);
  if (size < 0) return fail_errno(Exit::io, errno, "{}: cannot read the link", quote(path));
  return std::string(target, static_cast<std::size_t>(size));
}

Result<std::vector<std::string>> SourceRoot::names(const std::string& path) const {
  JAIL_TRY(fd, open_at(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  note(path, LookAt::directory, fd.get());
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::fdopendir(fd.get()), &::closedir);
  if (!dir) return fail_errno(Exit::io, errno, "{}: cannot read the directory", quote(path));
  (void)fd.release();  // the stream's now
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  if (errno != 0) return fail_errno(Exit::io, errno, "{}: cannot read the directory", quote(path));
  std::sort(names.begin(), names.end());
  return names;
}

std::string SourceRoot::distribution() const {
  constexpr std::size_t enough = 64U << 10U;
  std::string id, version;
  for (const char* path : {"/etc/os-release", "/usr/lib/os-release"}) {
    const auto text = read(path, enough);
    if (!text) continue;
    for (std::size_t at = 0; at < text->size();) {
      const std::size_t end = std::min(text->find('\n', at), text->size());
      os_release_value(std::string_view(*text).substr(at, end - at), "ID=", id);
      os_release_value(std::string_view(*text).substr(at, end - at), "VERSION_ID=", version);
      at = end + 1;
    }
    break;
  }
  return id.empty() || version.empty() ? id : id + "-" + version;
}

std::string normal_path(const std::string& path) {
  std::string normal;
  std::size_t start = 0;
  while (start < path.size()) {
    std::size_t end = path.find('/', start);
    if (end == std::string::npos) end = path.size();
    const std::string_view part(path.data() + start, end - start);
    if (!part.empty() && part != ".") normal.append("/").append(part);
    start = end + 1;
  }
  return normal.empty() ? "/" : normal;
}

std::string parent_path(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

std::string base_name(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

bool is_at_or_below(const std::string& path, const std::string& dir) {
  if (dir == "/") return true;
  return path.starts_with(dir) && (path.size() == dir.size() || path[dir.size()] == '/');
}

}  // namespace jail
