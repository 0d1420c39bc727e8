#include "supervisor/sandbox/network.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "supervisor/base/quote.h"
#include "supervisor/sandbox/raw.h"
#include "supervisor/spec/launch_spec.h"

namespace jail::sandbox {
namespace {

constexpr const char* directory = "/run/netns";

/// O_PATH: nothing happens to what is opened before it is known what it is.
long open_path(long dirfd, const char* path, std::uint64_t flags) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW | flags;
  how.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return raw(SYS_openat2, dirfd, path, &how, sizeof how);
}

tl::unexpected<Error> no_such(const std::string& name) {
  return with_hint(
      fail(Exit::host, "no network namespace {}: there is no {}/{}", quote(name), directory, name),
      "make it: ip netns add " + name);
}

tl::unexpected<Error> is_none(const std::string& name) {
  return with_hint(fail(Exit::host, "{}/{} is not a network namespace", directory, name),
                   fmt::format("make it anew: ip netns delete {}; ip netns add {}", name, name));
}

}  // namespace

Result<UniqueFd> open_named_network(const std::string& name) {
  if (!valid_network_name(name))
    return fail(Exit::config, "{} cannot be the name of a network namespace", quote(name));
  const long parent = open_path(AT_FDCWD, directory, O_DIRECTORY);
  if (parent == -ENOENT) return no_such(name);
  if (parent < 0) return fail_errno(Exit::host, static_cast<int>(-parent), "{}: cannot open", directory);
  const UniqueFd parent_fd(static_cast<int>(parent));
  struct stat status {};
  if (::fstat(parent_fd.get(), &status) != 0)
    return fail_errno(Exit::io, errno, "{}: cannot stat", directory);
  if (status.st_uid != 0 || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return with_hint(fail(Exit::permission, "{}: others than root may change it", directory),
                     fmt::format("chown root:root {0} && chmod 755 {0}", directory));

  const long found = open_path(parent_fd.get(), name.c_str(), 0);
  if (found == -ENOENT) return no_such(name);
  if (found == -ELOOP) return is_none(name);
  if (found < 0)
    return fail_errno(Exit::host, static_cast<int>(-found), "{}/{}: cannot open", directory, name);
  const UniqueFd found_fd(static_cast<int>(found));
  struct statfs where {};
  if (::fstatfs(found_fd.get(), &where) != 0 || where.f_type != NSFS_MAGIC) return is_none(name);
  // The same inode again, this time to be used.
  UniqueFd network(::open(fmt::format("/proc/self/fd/{}", found_fd.get()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!network) return fail_errno(Exit::host, errno, "{}/{}: cannot open", directory, name);
  if (::ioctl(network.get(), NS_GET_NSTYPE) != CLONE_NEWNET) return is_none(name);
  return network;
}

}  // namespace jail::sandbox
