#include "jailer/tree/copy.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "jailer/tree/write_error.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail::tree {
namespace {

tl::unexpected<Error> write_failed(const std::string& name) {
  return fail_write(errno, "{}: cannot write", quote(name));
}

bool all_zero(const char* bytes, std::size_t size) {
  return bytes[0] == 0 && std::equal(bytes + 1, bytes + size, bytes);
}

/// read() and write(); runs of zeros of a sparse source become holes again.
Result<std::string> read_write(const OpenSource& source, int target, const std::string& name, Sha256* hash,
                               std::string& buffer, Writeback* writeback) {
  buffer.resize(chunk_size);
  const bool sparse = source.status.st_blocks * 512 < source.status.st_size;
  off_t at = 0;
  off_t begun = 0;
  const auto write_back = [&] {
    if (writeback != nullptr && at > begun) writeback->begin(target, begun, at - begun);
    begun = at;
  };
  while (true) {
    const ssize_t got = ::pread(source.fd.get(), buffer.data(), buffer.size(), at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int error = errno;
      if (hash != nullptr) (void)hash->hex();
      return fail_errno(Exit::io, error, "{}: cannot read", source.shown);
    }
    if (got == 0) break;
    const auto size = static_cast<std::size_t>(got);
    if (hash != nullptr) hash->update(buffer.data(), size);
    at += got;
    if (sparse && all_zero(buffer.data(), size)) {
      if (::lseek(target, got, SEEK_CUR) < 0) return write_failed(name);
      continue;
    }
    for (std::size_t done = 0; done < size;) {
      const ssize_t put = ::write(target, buffer.data() + done, size - done);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) {
        const int error = errno;
        if (hash != nullptr) (void)hash->hex();
        errno = error;
        return write_failed(name);
      }
      done += static_cast<std::size_t>(put);
    }
    if (at - begun >= Writeback::step) write_back();
  }
  write_back();
  if (sparse && ::ftruncate(target, at) != 0) return write_failed(name);
  return hash != nullptr ? hash->hex() : std::string();
}

/// Files of these have no size that says how much is in them, and are made up anew at each reading.
bool is_pseudo(int fd) {
  struct statfs status {};
  if (::fstatfs(fd, &status) != 0) return false;
  constexpr unsigned long pseudo[] = {PROC_SUPER_MAGIC,   SYSFS_MAGIC,         DEBUGFS_MAGIC,   TRACEFS_MAGIC,
                                      CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, SECURITYFS_MAGIC};
  return std::find(std::begin(pseudo), std::end(pseudo), static_cast<unsigned long>(status.f_type)) !=
         std::end(pseudo);
}

/// The kernel copies. True when all was copied; false when it cannot (nothing was written, or all of it is
/// taken back).
Result<bool> in_kernel(const OpenSource& source, int target, const std::string& name) {
  off_t left = source.status.st_size;
  while (left > 0) {
    const ssize_t put =
        ::copy_file_range(source.fd.get(), nullptr, target, nullptr, static_cast<std::size_t>(left), 0);
    if (put > 0) {
      left -= put;
      continue;
    }
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO || errno == EFBIG))
      return write_failed(name);
    // 0 is what files of pseudo file systems give; other errors mean that these two file systems will not do
    // it.
    if (::ftruncate(target, 0) != 0 || ::lseek(target, 0, SEEK_SET) != 0) return write_failed(name);
    return false;
  }
  return true;
}

}  // namespace

Result<OpenSource> open_source(const RootDir& root, const std::string& path) {
  OpenSource source;
  source.shown = root.shown(path);
  source.fd = root.in_root(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
  if (!source.fd)
    return fail_errno(errno == ENOENT || errno == ENOTDIR ? Exit::no_input : Exit::io, errno,
                      "{}: cannot open", source.shown);
  if (::fstat(source.fd.get(), &source.status) != 0)
    return fail_errno(Exit::io, errno, "{}: cannot stat", source.shown);
  if (!S_ISREG(source.status.st_mode)) return fail(Exit::no_input, "{}: not a regular file", source.shown);
  if (is_pseudo(source.fd.get()))
    return with_hint(
        fail(Exit::no_input, "{}: the kernel makes its bytes up, there is nothing to copy", source.shown),
        "write what the jail shall see into the manifest: files = [{ to = ..., text = ... }]");
  return source;
}

Result<std::string> copy_bytes(const OpenSource& source, int target, const std::string& name, bool hash,
                               Worker& worker, Writeback* writeback) {
  if (source.status.st_size > 0 && ::ioctl(target, FICLONE, source.fd.get()) == 0)
    return hash ? hash_file(target, worker.hash, worker.buffer, name) : Result<std::string>(std::string());
  if (!hash && source.status.st_size > 0) {
    JAIL_TRY(copied, in_kernel(source, target, name));
    if (copied) return std::string();
  }
  return read_write(source, target, name, hash ? &worker.hash : nullptr, worker.buffer, writeback);
}

bool unchanged(const OpenSource& source) {
  struct stat now {};
  return ::fstat(source.fd.get(), &now) == 0 && stamp_of(now) == stamp_of(source.status);
}

}  // namespace jail::tree
