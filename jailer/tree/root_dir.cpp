#include "jailer/tree/root_dir.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <vector>

#include "supervisor/base/quote.h"

namespace jail::tree {
namespace {

constexpr int max_links = 40;      // as the kernel's own limit
constexpr int max_attempts = 128;  // EAGAIN: somebody renames while we look

/// openat2 with bounded patience: EAGAIN means that a rename or mount raced with the walk.
UniqueFd try_openat2(int root, const std::string& path, int flags, std::uint64_t resolve) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(static_cast<unsigned>(flags));
  how.resolve = resolve;
  for (int attempt = 0; attempt < max_attempts; ++attempt) {
    const long fd = ::syscall(SYS_openat2, root, path.c_str(), &how, sizeof how);
    if (fd >= 0) return UniqueFd(static_cast<int>(fd));
    if (errno != EAGAIN && errno != EINTR) break;
  }
  return {};
}

bool must_fall_back() {
  return errno == ENOSYS || errno == EPERM || errno == E2BIG;
}

/// The components of `path`, last first; empty ones and "." are gone.
void push_components(std::vector<std::string>& stack, std::string_view path) {
  std::size_t end = path.size();
  while (end > 0) {
    const std::size_t slash = path.rfind('/', end - 1);
    const std::size_t begin = slash == std::string_view::npos ? 0 : slash + 1;
    const std::string_view part = path.substr(begin, end - begin);
    if (!part.empty() && part != ".") stack.emplace_back(part);
    if (slash == std::string_view::npos) break;
    end = slash;
  }
}

UniqueFd refuse(int error) {
  errno = error;
  return {};
}

/// RESOLVE_BENEATH|NO_SYMLINKS|NO_XDEV by hand: each directory by O_PATH|O_NOFOLLOW, then the last component.
UniqueFd components_beneath(int root, std::string_view path, int flags) {
  std::vector<std::string> todo;
  push_components(todo, path);
  struct stat origin {};
  if (::fstat(root, &origin) != 0) return {};
  UniqueFd here;
  if (todo.empty()) return UniqueFd(::openat(root, ".", flags));
  while (true) {
    const std::string part = std::move(todo.back());
    todo.pop_back();
    if (part == "..") return refuse(EXDEV);
    const bool last = todo.empty();
    const int how = last ? flags : O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    UniqueFd next(::openat(here ? here.get() : root, part.c_str(), how));
    struct stat status {};
    if (!next || ::fstat(next.get(), &status) != 0) return {};
    if (status.st_dev != origin.st_dev) return refuse(EXDEV);
    if (last) return next;
    here = std::move(next);
  }
}

/// Reads the link that the O_PATH descriptor `fd` holds; false with errno.
bool read_link(int fd, std::string& target) {
  std::array<char, PATH_MAX> buffer{};
  const ssize_t length = ::readlinkat(fd, "", buffer.data(), buffer.size());
  if (length <= 0) return false;
  target.assign(buffer.data(), static_cast<std::size_t>(length));
  return true;
}

struct Step {
  UniqueFd fd;
  std::string path;
};

/// RESOLVE_IN_ROOT by hand. The stack of open directories is what ".." goes back on, so that no rename leads
/// above.
UniqueFd components_in_root(int root, std::string_view path, int flags, const RootDir::Visit* visit) {
  std::vector<std::string> todo;
  push_components(todo, path);
  std::vector<Step> above;
  int links = 0;
  if (visit != nullptr && !(*visit)(root, "/")) return refuse(EPERM);
  while (!todo.empty()) {
    const std::string part = std::move(todo.back());
    todo.pop_back();
    if (part == "..") {
      if (!above.empty()) above.pop_back();
      continue;
    }
    const bool last = todo.empty();
    const int here = above.empty() ? root : above.back().fd.get();
    UniqueFd next(::openat(here, part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat status {};
    if (!next || ::fstat(next.get(), &status) != 0) return {};
    if (S_ISLNK(status.st_mode) && !(last && (flags & O_NOFOLLOW) != 0)) {
      std::string target;
      if (++links > max_links) return refuse(ELOOP);
      const std::string link = (above.empty() ? "" : above.back().path) + "/" + part;
      if (visit != nullptr && !(*visit)(next.get(), link)) return refuse(EPERM);
      if (!read_link(next.get(), target)) return {};
      if (target.starts_with('/')) above.clear();
      push_components(todo, target);
      continue;
    }
    if (last && !(visit != nullptr && S_ISDIR(status.st_mode)))
      return UniqueFd(::openat(here, part.c_str(), flags | O_NOFOLLOW | O_CLOEXEC));
    if (!S_ISDIR(status.st_mode)) return refuse(ENOTDIR);
    const std::string shown = (above.empty() ? "" : above.back().path) + "/" + part;
    if (visit != nullptr && !(*visit)(next.get(), shown)) return refuse(EPERM);
    above.push_back({std::move(next), shown});
  }
  return UniqueFd(::openat(above.empty() ? root : above.back().fd.get(), ".", flags | O_CLOEXEC));
}

}  // namespace

Result<RootDir> RootDir::open(const std::string& path, Walk walk) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd)
    return fail_errno(errno == ENOENT ? Exit::no_input : Exit::io, errno, "{}: cannot open the directory",
                      quote(path));
  return RootDir(std::move(fd), path, walk);
}

RootDir::RootDir(UniqueFd fd, std::string name, Walk walk)
    : fd_(std::move(fd)), name_(std::move(name)), walk_(walk) {
  while (name_.size() > 1 && name_.back() == '/') name_.pop_back();
}

std::string RootDir::shown(std::string_view path) const {
  return quote((name_ == "/" ? std::string() : name_) + std::string(path), PATH_MAX);
}

UniqueFd RootDir::beneath(std::string_view path, int flags) const {
  std::string relative(path.substr(std::min(path.find_first_not_of('/'), path.size())));
  if (relative.empty()) relative = ".";
  flags |= O_CLOEXEC | O_NOFOLLOW;
  if (walk_ == Walk::automatic) {
    UniqueFd fd =
        try_openat2(fd_.get(), relative, flags,
                    RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV);
    if (fd || !must_fall_back()) return fd;
  }
  return components_beneath(fd_.get(), relative, flags);
}

UniqueFd RootDir::in_root(std::string_view path, int flags) const {
  flags |= O_CLOEXEC;
  if (walk_ == Walk::automatic) {
    UniqueFd fd = try_openat2(fd_.get(), std::string(path), flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
    if (fd || !must_fall_back()) return fd;
  }
  return components_in_root(fd_.get(), path, flags, nullptr);
}

UniqueFd RootDir::walk(std::string_view path, int flags, const Visit& visit) const {
  return components_in_root(fd_.get(), path, flags, &visit);
}

Cursor::Place Cursor::at(const std::string& path) {
  const std::string_view parent = parent_of(path);
  const char* name = path.c_str() + path.rfind('/') + 1;
  if (fd_ && parent == parent_) return {fd_.get(), name};
  constexpr int flags = O_PATH | O_DIRECTORY;
  fd_ = kind_ == Kind::beneath ? root_.beneath(parent, flags) : root_.in_root(parent, flags);
  if (!fd_) return {-1, name};
  parent_ = parent;
  return {fd_.get(), name};
}

void Cursor::forget() {
  fd_.reset();
}

bool is_clean(std::string_view path) {
  if (path == "/") return true;
  if (!path.starts_with('/') || path.size() >= PATH_MAX || path.find('\0') != std::string_view::npos)
    return false;
  for (std::size_t at = 1; at <= path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string_view part = path.substr(at, end - at);
    if (part.empty() || part == "." || part == ".." || part.size() > NAME_MAX) return false;
    at = end + 1;
  }
  return true;
}

std::string_view parent_of(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return path.substr(0, slash == 0 || slash == std::string_view::npos ? 1 : slash);
}

}  // namespace jail::tree
