#include "jailer/init/place.h"

#include <fcntl.h>
#include <limits.h>

#include <array>
#include <cerrno>
#include <cstdio>

#include "jailer/tree/root_dir.h"
#include "jailer/tree/state.h"
#include "jailer/tree/write_error.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail::init {
namespace {

constexpr std::size_t max_content = 4UL << 20U;

std::string parent(const std::string& path) {
  return std::string(tree::parent_of(path));
}
std::string leaf(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}
/// Only root writes in these directories, and one init at a time: what has this name is of one that died.
std::string half_made(const std::string& path) {
  return "." + leaf(path).substr(0, NAME_MAX - 16) + ".init-new";
}

Result<Seen> look_in(int dir, const std::string& path) {
  Seen seen;
  const std::string name = leaf(path);
  if (::fstatat(dir, name.c_str(), &seen.status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return seen;
    return fail_errno(Exit::io, errno, "{}: cannot stat", quote(path));
  }
  seen.there = true;
  if (S_ISLNK(seen.status.st_mode)) {
    std::array<char, PATH_MAX> target{};
    const ssize_t length = ::readlinkat(dir, name.c_str(), target.data(), target.size());
    if (length < 0) return fail_errno(Exit::io, errno, "{}: cannot read the link", quote(path));
    seen.content.assign(target.data(), static_cast<std::size_t>(length));
    seen.whole = true;
  } else if (S_ISREG(seen.status.st_mode) && static_cast<std::size_t>(seen.status.st_size) <= max_content) {
    JAIL_TRY(content, read_file_at(dir, name, max_content, false));
    seen.content = std::move(content);
    seen.whole = true;
  }
  return seen;
}

/// What was made under the temporary name in `dir` gets its own, unless something has that already.
Result<bool> publish(int dir, const std::string& path) {
  const std::string temporary = half_made(path);
  if (::renameat2(dir, temporary.c_str(), dir, leaf(path).c_str(), RENAME_NOREPLACE) == 0) {
    if (::fsync(dir) != 0) return tree::fail_write(errno, "{}: cannot sync", quote(parent(path)));
    return true;
  }
  const int error = errno;
  remove_half_made(path);
  if (error == EEXIST) return false;
  return tree::fail_write(error, "{}: cannot make", quote(path));
}

tl::unexpected<Error> undone(const std::string& path) {
  const int error = errno;
  remove_half_made(path);
  return tree::fail_write(error, "{}: cannot make", quote(path));
}

/// The directory that holds `path`; empty where it is not there.
Result<UniqueFd> open_parent(const std::string& path) {
  auto dir = tree::open_safe(parent(path), false);
  if (!dir && dir.error().exit == Exit::no_input) return UniqueFd();
  return dir;
}

}  // namespace

Result<Seen> look(const std::string& path) {
  JAIL_TRY(dir, open_parent(path));
  if (!dir) return Seen{};
  return look_in(dir.get(), path);
}

Result<void> demand_closed_directory(const std::string& path, const Seen& seen) {
  if (!seen.there) return {};
  const struct stat& status = seen.status;
  if (S_ISLNK(status.st_mode))
    return with_hint(
        fail(Exit::config, "{}: a symbolic link, where a directory is to be laid out", quote(path)),
        "make it a directory, or move it away");
  if (!S_ISDIR(status.st_mode))
    return with_hint(fail(Exit::config, "{}: not a directory", quote(path)), "move it away");
  if (status.st_uid == 0 && (status.st_mode & (S_IWGRP | S_IWOTH)) == 0) return {};
  return with_hint(fail(Exit::config, "{}: others than root may write in it (uid {}, mode {:04o})",
                        quote(path), status.st_uid, status.st_mode & 07777U),
                   fmt::format("run: chown root {0} && chmod go-w {0}", path));
}

Result<bool> make_directory(const std::string& path, unsigned mode, gid_t group) {
  JAIL_TRY(dir, tree::open_safe(parent(path), true));
  const std::string temporary = half_made(path);
  remove_half_made(path);
  if (::mkdirat(dir.get(), temporary.c_str(), 0700) != 0) return undone(path);
  const UniqueFd made(
      ::openat(dir.get(), temporary.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!made || ::fchown(made.get(), 0, group) != 0 || ::fchmod(made.get(), mode) != 0) return undone(path);
  return publish(dir.get(), path);
}

Result<bool> make_file(const std::string& path, std::string_view bytes, unsigned mode, gid_t group) {
  JAIL_TRY(dir, tree::open_safe(parent(path), true));
  const std::string temporary = half_made(path);
  remove_half_made(path);
  const UniqueFd fd(
      ::openat(dir.get(), temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return undone(path);
  if (auto written = tree::write_whole(fd.get(), bytes, quote(path)); !written) {
    remove_half_made(path);
    return tl::unexpected(std::move(written).error());
  }
  if (::fchown(fd.get(), 0, group) != 0 || ::fchmod(fd.get(), mode) != 0 || ::fsync(fd.get()) != 0)
    return undone(path);
  return publish(dir.get(), path);
}

Result<bool> make_link(const std::string& path, const std::string& target) {
  JAIL_TRY(dir, tree::open_safe(parent(path), true));
  if (::symlinkat(target.c_str(), dir.get(), leaf(path).c_str()) != 0) {
    if (errno == EEXIST) return false;
    return tree::fail_write(errno, "{}: cannot make the link", quote(path));
  }
  if (::fsync(dir.get()) != 0) return tree::fail_write(errno, "{}: cannot sync", quote(parent(path)));
  return true;
}

Result<void> remove_file(const std::string& path) {
  JAIL_TRY(dir, open_parent(path));
  if (!dir || ::unlinkat(dir.get(), leaf(path).c_str(), 0) == 0 || errno == ENOENT) return {};
  return tree::fail_write(errno, "{}: cannot remove", quote(path));
}

void remove_half_made(const std::string& path) {
  const auto dir = open_parent(path);
  if (!dir || !*dir) return;
  const std::string temporary = half_made(path);
  if (::unlinkat(dir->get(), temporary.c_str(), 0) != 0 && errno == EISDIR)
    ::unlinkat(dir->get(), temporary.c_str(), AT_REMOVEDIR);
}

Result<bool> remove_directory(const std::string& path) {
  JAIL_TRY(dir, open_parent(path));
  if (!dir || ::unlinkat(dir.get(), leaf(path).c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT) return true;
  if (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR) return false;
  return tree::fail_write(errno, "{}: cannot remove", quote(path));
}

}  // namespace jail::init
