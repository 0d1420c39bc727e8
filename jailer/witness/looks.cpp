#include "jailer/witness/looks.h"

#include <fcntl.h>

#include <cerrno>

namespace jail {

void Looks::add(std::string path, LookAt how) {
  struct stat status {};
  const bool follow = how == LookAt::file || how == LookAt::directory;
  if (::fstatat(AT_FDCWD, path.c_str(), &status, follow ? 0 : AT_SYMLINK_NOFOLLOW) == 0)
    add(std::move(path), how, &status);
  else if (errno == ENOENT || errno == ENOTDIR)
    add(std::move(path), how, nullptr);
  else
    spoil();
}

}  // namespace jail
