#include "supervisor/base/open_below.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

namespace jail {
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
  return errno == ENOSYS || errno == EPERM || errno == E2BIG || errno == EAGAIN;
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

/// Without links, by hand: each directory by O_PATH|O_NOFOLLOW, then the last component.
UniqueFd components_beneath(int root, std::string_view path, int flags, bool one_file_system) {
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
    if (one_file_system && status.st_dev != origin.st_dev) return refuse(EXDEV);
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
UniqueFd components_in_root(int root, std::string_view path, int flags, const VisitStep* visit) {
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

/// What openat2 takes for a path below the root.
std::string relative(std::string_view path) {
  std::string below(path.substr(std::min(path.find_first_not_of('/'), path.size())));
  return below.empty() ? "." : below;
}

UniqueFd without_links(int root, std::string_view path, int flags, std::uint64_t resolve, Walk walk) {
  flags |= O_CLOEXEC | O_NOFOLLOW;
  const std::string below = relative(path);
  if (walk == Walk::automatic) {
    UniqueFd fd = try_openat2(root, below, flags, resolve | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
    if (fd || !must_fall_back()) return fd;
  }
  return components_beneath(root, below, flags, (resolve & RESOLVE_NO_XDEV) != 0);
}

}  // namespace

UniqueFd open_beneath(int root, std::string_view path, int flags, Walk walk) {
  return without_links(root, path, flags, RESOLVE_BENEATH | RESOLVE_NO_XDEV, walk);
}

UniqueFd open_without_links(int root, std::string_view path, int flags, Walk walk) {
  return without_links(root, path, flags, RESOLVE_BENEATH, walk);
}

UniqueFd open_in_root(int root, std::string_view path, int flags, Walk walk) {
  flags |= O_CLOEXEC;
  if (walk == Walk::automatic) {
    UniqueFd fd = try_openat2(root, std::string(path), flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
    if (fd || !must_fall_back()) return fd;
  }
  return components_in_root(root, path, flags, nullptr);
}

UniqueFd walk_in_root(int root, std::string_view path, int flags, const VisitStep& visit) {
  return components_in_root(root, path, flags | O_CLOEXEC, &visit);
}

}  // namespace jail
