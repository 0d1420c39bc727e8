#include "jailer/tree/root_dir.h"

#include <fcntl.h>
#include <limits.h>

#include "supervisor/base/quote.h"

namespace jail::tree {

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
  return open_beneath(fd_.get(), path, flags, walk_);
}

UniqueFd RootDir::in_root(std::string_view path, int flags) const {
  return open_in_root(fd_.get(), path, flags, walk_);
}

UniqueFd RootDir::walk(std::string_view path, int flags, const Visit& visit) const {
  return walk_in_root(fd_.get(), path, flags, visit);
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
