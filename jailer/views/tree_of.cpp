#include "jailer/views/tree_of.h"

#include <fcntl.h>

#include <cerrno>

#include "supervisor/base/quote.h"

namespace jail::views {

Result<tree::RootDir> tree_of(const generation::Opened& opened) {
  UniqueFd fd(::openat(opened.dir.get(), generation::tree, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail_errno(Exit::io, errno, "{}/tree: cannot open", quote(opened.path));
  return tree::RootDir(std::move(fd), opened.path + "/tree");
}

}  // namespace jail::views
