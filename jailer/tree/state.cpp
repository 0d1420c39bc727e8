#include "jailer/tree/state.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>

#include "jailer/tree/write_error.h"
#include "supervisor/base/quote.h"

namespace jail::tree {
namespace {

constexpr mode_t writable_by_others = S_IWGRP | S_IWOTH;

/// Why `status`, of a directory at or above the state or of a link on the way to it, is not safe; empty if it
/// is.
std::string unsafe(const struct stat& status) {
  if (status.st_uid != 0)
    return fmt::format("{} uid {}, not to root",
                       S_ISLNK(status.st_mode) ? "is a link that belongs to" : "belongs to", status.st_uid);
  if (S_ISLNK(status.st_mode)) return {};
  if ((status.st_mode & writable_by_others) == 0 || (status.st_mode & S_ISVTX) != 0) return {};
  return fmt::format("its mode is {:04o}: others than root may write in it", status.st_mode & 07777U);
}

constexpr const char* for_jails = "place for jails";

tl::unexpected<Error> refuse(const std::string& directory, const std::string& why, std::string_view purpose) {
  const char* otherwise = purpose == for_jails ? "; or keep the jails elsewhere (--home DIR)" : "";
  return with_hint(fail(Exit::config, "{}: not a safe {}: {}", quote(directory), purpose, why),
                   fmt::format("run: chown -h root {0} && chmod go-w {0}{1}", directory, otherwise));
}

/// Walks to `path` from "/", each directory checked, symlinks of checked directories followed.
Result<UniqueFd> walk_checked(const RootDir& root, const std::string& path, const char* purpose) {
  std::string culprit;
  std::string why;
  const RootDir::Visit visit = [&](int fd, const std::string& at) {
    struct stat status {};
    why = ::fstat(fd, &status) == 0 ? unsafe(status) : ::strerrordesc_np(errno);
    culprit = at;
    return why.empty();
  };
  UniqueFd fd = root.walk(path, O_RDONLY | O_DIRECTORY, visit);
  if (fd) return fd;
  if (!why.empty()) return refuse(culprit, why, purpose);
  return fail_errno(errno == ENOENT ? Exit::no_input : Exit::cannot_create, errno, "{}: cannot open",
                    quote(path));
}

Result<UniqueFd> open_or_make(const RootDir& root, const std::string& path, bool make, const char* purpose) {
  auto found = walk_checked(root, path, purpose);
  if (found || found.error().exit != Exit::no_input || !make || path == "/") return found;
  const std::string_view parent = parent_of(path);
  JAIL_TRY(above, open_or_make(root, std::string(parent), make, purpose));
  const std::string name = path.substr(path.rfind('/') + 1);
  if (::mkdirat(above.get(), name.c_str(), 0755) != 0 && errno != EEXIST)
    return fail_write(errno, "{}: cannot make the directory", quote(path));
  UniqueFd made(::openat(above.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!made || ::fchmod(made.get(), 0755) != 0)
    return fail_errno(Exit::cannot_create, errno, "{}: cannot open the directory", quote(path));
  return made;
}

}  // namespace

Result<UniqueFd> open_safe(const std::string& path, bool make, const char* purpose) {
  if (!is_clean(path)) return fail(Exit::usage, "{}: not an absolute path without \"..\"", quote(path));
  JAIL_TRY(root, RootDir::open("/"));
  JAIL_TRY(fd, open_or_make(root, path, make, purpose));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(Exit::io, errno, "{}: cannot stat", quote(path));
  if ((status.st_mode & writable_by_others) != 0)
    return refuse(
        path, fmt::format("its mode is {:04o}: others than root may write in it", status.st_mode & 07777U),
        purpose);
  return std::move(fd);
}

Result<void> demand_safe_file(const std::string& path, const char* purpose) {
  if (!is_clean(path) || path == "/") return fail(Exit::usage, "{}: no path of a file", quote(path));
  JAIL_TRY(directory, open_safe(std::string(parent_of(path)), false, purpose));
  struct stat status {};
  if (::fstatat(directory.get(), path.c_str() + path.rfind('/') + 1, &status, AT_SYMLINK_NOFOLLOW) != 0)
    return fail_errno(Exit::io, errno, "{}: cannot stat", quote(path));
  if (const std::string why = unsafe(status); !why.empty()) return refuse(path, why, purpose);
  return {};
}

Result<RootDir> open_sources(const std::string& path) {
  std::error_code error;
  const std::string absolute = is_clean(path) ? path : std::filesystem::canonical(path, error).string();
  if (error) return fail_errno(Exit::no_input, error.value(), "{}: cannot open the directory", quote(path));
  JAIL_TRY(fd, open_safe(absolute, false, "source of files"));
  return RootDir(std::move(fd), path);
}

Result<UniqueFd> open_private(int parent, const std::string& name, const std::string& path, bool make) {
  if (make && ::mkdirat(parent, name.c_str(), 0700) != 0 && errno != EEXIST)
    return fail_write(errno, "{}: cannot make the directory", quote(path));
  UniqueFd fd(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd)
    return fail_errno(errno == ENOENT ? Exit::no_input : Exit::io, errno, "{}: cannot open the directory",
                      quote(path));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(Exit::io, errno, "{}: cannot stat", quote(path));
  if (status.st_uid != 0 || (status.st_mode & writable_by_others) != 0)
    return refuse(path,
                  status.st_uid != 0 ? fmt::format("it belongs to uid {}, not to root", status.st_uid)
                                     : fmt::format("its mode is {:04o}", status.st_mode & 07777U),
                  for_jails);
  // A set-id program planted in a jail must be out of reach for the users of the host.
  if ((status.st_mode & 07777U) != 0700 && ::fchmod(fd.get(), 0700) != 0)
    return fail_errno(Exit::io, errno, "{}: cannot set the mode to 0700", quote(path));
  return fd;
}

Result<UniqueFd> open_state_part(const Instance& instance, const std::string& name, bool make) {
  JAIL_TRY(state, open_safe(instance.state, make));
  return open_private(state.get(), name, instance.state + "/" + name, make);
}

Result<void> demand_root(const std::string& what) {
  if (::geteuid() == 0) return {};
  return with_hint(
      fail(Exit::permission, "only root can {}: trees hold files of several owners and device nodes", what),
      "run the command as root");
}

}  // namespace jail::tree
