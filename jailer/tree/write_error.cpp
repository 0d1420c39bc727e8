#include "jailer/tree/write_error.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

namespace jail::tree {
namespace {

struct Row {
  int error;
  Exit exit;
  const char* hint;
};
constexpr Row rows[] = {
    {ENOSPC, Exit::cannot_create,
     "free blocks or inodes there (df -h and df -i tell which; jail gc removes what no jail needs), then "
     "build again"},
    {EDQUOT, Exit::cannot_create, "raise root's quota there or free something, then build again"},
    {EROFS, Exit::cannot_create,
     "mount that file system for writing, or keep the jails elsewhere (--home DIR)"},
    {EFBIG, Exit::cannot_create, "raise the limit (ulimit -f), or keep the jails on another file system"},
    {EMLINK, Exit::cannot_create, "keep the jails on a file system that allows more links (--home DIR)"},
    {EPERM, Exit::permission,
     "something keeps root from it: an immutable flag (lsattr), or a container without the capability"},
    {EACCES, Exit::permission, "something keeps root from it: a security module, or a container"},
};

const Row* row_of(int error_number) {
  const auto* row = std::find_if(std::begin(rows), std::end(rows),
                                 [&](const Row& each) { return each.error == error_number; });
  return row == std::end(rows) ? nullptr : row;
}

}  // namespace

Exit exit_for_write(int error_number) {
  const Row* row = row_of(error_number);
  return row == nullptr ? Exit::io : row->exit;
}

std::string hint_for_write(int error_number) {
  const Row* row = row_of(error_number);
  return row == nullptr ? std::string() : row->hint;
}

Result<void> write_whole(int fd, std::string_view bytes, std::string_view shown) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail_write(errno, "{}: cannot write", shown);
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
  return {};
}

}  // namespace jail::tree
