#include "jailer/elf/locate.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <string_view>

#include "supervisor/base/quote.h"

namespace jail::elf {
namespace {

constexpr int kMaxLinks = 40;  // MAXSYMLINKS of the kernel

/// Opens `real` (absolute, below the root, free of links when it was looked at) without following any link.
UniqueFd open_plain(int root, const std::string& real, unsigned flags, int& error) {
  open_how how{};
  how.flags = flags | O_CLOEXEC | O_NOFOLLOW;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS;
  const char* path = real.size() > 1 ? real.c_str() + 1 : ".";
  for (int attempt = 0; attempt < 100; ++attempt) {
    const long fd = ::syscall(SYS_openat2, root, path, &how, sizeof how);
    if (fd >= 0) return UniqueFd(static_cast<int>(fd));
    error = errno;
    if (error != EAGAIN && error != EINTR) break;  // EAGAIN: a rename raced with the walk
  }
  return {};
}

/// A path's components, last one first, so that a link's can be put on top.
void push_components(std::vector<std::string>& stack, std::string_view path) {
  while (!path.empty()) {
    const std::size_t slash = path.rfind('/');
    const std::string_view part = slash == std::string_view::npos ? path : path.substr(slash + 1);
    // "a/" and "a/." ask that a be a directory: "." stands for that, and is checked like any step.
    if (!part.empty()) {
      stack.emplace_back(part);
    } else if (stack.empty() && slash != 0) {
      stack.emplace_back(".");
    }
    if (slash == std::string_view::npos) break;
    path = path.substr(0, slash);
  }
}

}  // namespace

Result<RootTree> RootTree::open(const std::string& root, Looks* looks) {
  UniqueFd fd(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(Exit::no_input, errno, "{}: cannot open the root directory", quote(root));
  return RootTree(root, std::move(fd), looks);
}

RootTree::Node RootTree::look(const std::string& real) const {
  Node node;
  UniqueFd fd = open_plain(fd_.get(), real, O_PATH, node.error);
  struct stat status {};
  if (fd && ::fstat(fd.get(), &status) != 0) {
    node.error = errno;
    fd.reset();
  }
  if (looks_ != nullptr) {
    if (fd)
      looks_->add(real, LookAt::entry, &status);
    else if (node.error == ENOENT || node.error == ENOTDIR)
      looks_->add(real, LookAt::entry, nullptr);
    else
      looks_->spoil();
  }
  if (!fd) return node;
  node.device = status.st_dev;
  node.inode = status.st_ino;
  node.mode = status.st_mode;
  if (S_ISDIR(status.st_mode)) {
    node.type = Node::Type::directory;
  } else if (S_ISREG(status.st_mode)) {
    node.type = Node::Type::regular;
  } else if (S_ISLNK(status.st_mode)) {
    char target[PATH_MAX];
    const ssize_t length = ::readlinkat(fd.get(), "", target, sizeof target);
    if (length <= 0 || length == static_cast<ssize_t>(sizeof target)) {
      node.error = length < 0 ? errno : ENAMETOOLONG;
      return node;
    }
    node.type = Node::Type::link;
    node.target.assign(target, static_cast<std::size_t>(length));
  } else {
    node.type = Node::Type::other;
  }
  return node;
}

const RootTree::Node& RootTree::node(const std::string& real) {
  const auto known = nodes_.find(real);
  if (known != nodes_.end()) return known->second;
  return nodes_.emplace(real, look(real)).first->second;
}

RootTree::Found RootTree::follow(const std::string& path) {
  Found found;
  found.located.path = path;
  const auto missing = [&](int error) {
    found.kind = Kind::missing;
    found.error = error;
    return std::move(found);
  };
  if (path.empty() || path[0] != '/' || path.find('\0') != std::string::npos) return missing(EINVAL);
  if (path.size() >= PATH_MAX) return missing(ENAMETOOLONG);
  std::vector<std::string> stack;
  push_components(stack, path);
  std::string real = "/";
  const Node* here = &node(real);
  while (!stack.empty()) {
    const std::string part = std::move(stack.back());
    stack.pop_back();
    if (here->type != Node::Type::directory) return missing(here->error != 0 ? here->error : ENOTDIR);
    if (part == ".") continue;
    if (part == "..") {
      real.resize(real.rfind('/'));
      if (real.empty()) real = "/";
      here = &node(real);
      continue;
    }
    const std::string next = real.size() == 1 ? "/" + part : real + "/" + part;
    const Node& step = node(next);
    if (step.type == Node::Type::missing) return missing(step.error != 0 ? step.error : ENOENT);
    if (step.type == Node::Type::link) {
      if (found.located.hops.size() >= kMaxLinks) return missing(ELOOP);
      found.located.hops.push_back({next, step.target});
      if (step.target[0] == '/') real = "/";
      push_components(stack, step.target);
      here = &node(real);
      continue;
    }
    real = next;
    here = &step;
  }
  found.kind = here->type == Node::Type::directory ? Kind::directory
               : here->type == Node::Type::regular ? Kind::regular
                                                   : Kind::other;
  found.located.real = std::move(real);
  found.device = here->device;
  found.inode = here->inode;
  found.mode = here->mode;
  return found;
}

const RootTree::Found& RootTree::find(const std::string& path) {
  const auto known = found_.find(path);
  if (known != found_.end()) return known->second;
  return found_.emplace(path, follow(path)).first->second;
}

Result<UniqueFd> RootTree::open_file(const Found& found, std::uint64_t* size) const {
  int error = 0;
  UniqueFd fd = open_plain(fd_.get(), found.located.real, O_RDONLY | O_NONBLOCK | O_NOCTTY, error);
  if (!fd) return fail_errno(Exit::io, error, "{}: cannot open", quote(found.located.real));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0)
    return fail_errno(Exit::io, errno, "{}: cannot stat", quote(found.located.real));
  if (!S_ISREG(status.st_mode) || status.st_dev != found.device || status.st_ino != found.inode) {
    return with_hint(fail(Exit::io, "{}: was replaced while it was looked at", quote(found.located.real)),
                     "try again when no package is being installed");
  }
  if (size != nullptr) *size = static_cast<std::uint64_t>(status.st_size);
  return fd;
}

}  // namespace jail::elf
