#include "supervisor/base/io.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "supervisor/base/quote.h"

namespace jail {

Result<std::string> read_all(int fd, std::size_t limit, std::string_view name) {
  std::string bytes;
  struct stat status {};
  if (::fstat(fd, &status) == 0 && status.st_size > 0)
    bytes.reserve(std::min(limit, static_cast<std::size_t>(status.st_size)) + 1);
  constexpr std::size_t chunk = 65536;
  while (true) {
    const std::size_t have = bytes.size();
    const std::size_t room = bytes.capacity() > have ? bytes.capacity() - have : chunk;
    bytes.resize(have + room);
    const ssize_t got = ::read(fd, bytes.data() + have, room);
    const int error = errno;
    bytes.resize(have + (got > 0 ? static_cast<std::size_t>(got) : 0));
    if (got < 0 && error == EINTR) continue;
    if (got < 0) return fail_errno(Exit::io, error, "{}: cannot read", quote(name));
    if (got == 0) return bytes;
    if (bytes.size() > limit) return fail(Exit::manifest, "{}: larger than {} bytes", quote(name), limit);
  }
}

Result<std::string> read_file_at(int dirfd, const std::string& path, std::size_t limit, bool follow) {
  const int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (follow ? 0 : O_NOFOLLOW);
  const UniqueFd fd(::openat(dirfd, path.c_str(), flags));
  if (!fd)
    return fail_errno(errno == ENOENT || errno == ENOTDIR ? Exit::no_input : Exit::io, errno,
                      "{}: cannot open", quote(path));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(Exit::io, errno, "{}: cannot stat", quote(path));
  if (!S_ISREG(status.st_mode)) return fail(Exit::io, "{}: not a regular file", quote(path));
  return read_all(fd.get(), limit, path);
}

Result<void> write_all(int fd, std::string_view bytes, std::string_view name) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail_errno(Exit::io, errno, "{}: cannot write", quote(name));
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
  return {};
}

Result<void> replace_file_at(int dirfd, const std::string& name, std::string_view bytes, unsigned mode,
                             bool durable) {
  const std::string temporary = "." + name + ".new";
  ::unlinkat(dirfd, temporary.c_str(), 0);
  UniqueFd fd(::openat(dirfd, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(Exit::cannot_create, errno, "{}: cannot create", quote(temporary));
  auto give_up = [&](Error error) -> Result<void> {
    ::unlinkat(dirfd, temporary.c_str(), 0);
    return tl::unexpected(std::move(error));
  };
  if (auto written = write_all(fd.get(), bytes, name); !written) return give_up(std::move(written).error());
  if (::fchmod(fd.get(), mode) != 0 || (durable && ::fsync(fd.get()) != 0))
    return give_up(fail_errno(Exit::io, errno, "{}: cannot finish", quote(name)).value());
  if (::renameat(dirfd, temporary.c_str(), dirfd, name.c_str()) != 0)
    return give_up(fail_errno(Exit::io, errno, "{}: cannot rename into place", quote(name)).value());
  if (durable) ::fsync(dirfd);
  return {};
}

Result<UniqueFd> make_dirs_at(int dirfd, const std::string& path, unsigned mode) {
  const bool absolute = path.starts_with('/');
  UniqueFd here(::openat(dirfd, absolute ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!here) return fail_errno(Exit::io, errno, "{}: cannot open", quote(path));
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string part = path.substr(at, end - at);
    at = end + 1;
    if (part.empty() || part == ".") continue;
    const bool made = ::mkdirat(here.get(), part.c_str(), mode) == 0;
    if (!made && errno != EEXIST)
      return fail_errno(Exit::cannot_create, errno, "{}: cannot make the directory {}", quote(path),
                        quote(part));
    // A component that was there before may be a link of the admin's (/var -> /data/var); one that we made is
    // not.
    UniqueFd next(::openat(here.get(), part.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!next) return fail_errno(Exit::io, errno, "{}: cannot open {}", quote(path), quote(part));
    if (made && ::fchmod(next.get(), mode) != 0)
      return fail_errno(Exit::io, errno, "{}: cannot set the mode of {}", quote(path), quote(part));
    here = std::move(next);
  }
  return here;
}

}  // namespace jail
