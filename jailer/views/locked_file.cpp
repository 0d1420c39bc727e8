#include "jailer/views/locked_file.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "jailer/tree/tree_index.h"
#include "supervisor/base/quote.h"

namespace jail::views {
namespace {

tl::unexpected<Error> not_as_locked(const LockEntry& entry, std::string_view how) {
  return with_hint(fail(Exit::answer_no, "{}: {}", quote(entry.path), how),
                   "what differs in all: jail verify; a new generation mends it: jail build --force");
}

}  // namespace

Result<LockedReader> LockedReader::make(const tree::RootDir& tree) {
  LockedReader reader(tree);
  reader.buffer_.resize(tree::chunk_size);
  return reader;
}

Result<void> LockedReader::check(const LockEntry& entry) {
  struct stat status {};
  if (entry.path == "/") {
    if (::fstat(tree_->fd(), &status) != 0 || !tree::has_shape(status, entry))
      return not_as_locked(entry, "not as locked");
    return {};
  }
  const tree::Cursor::Place place = cursor_.at(entry.path);
  if (place.parent < 0 || ::fstatat(place.parent, place.name, &status, AT_SYMLINK_NOFOLLOW) != 0)
    return not_as_locked(entry, "is missing in the tree");
  if (!tree::has_shape(status, entry))
    return not_as_locked(entry, "its type, mode, owner or size is not as locked");
  if (entry.type != EntryType::symlink) return {};
  std::array<char, PATH_MAX> target{};
  const ssize_t length = ::readlinkat(place.parent, place.name, target.data(), target.size());
  if (length < 0 || std::string_view(target.data(), static_cast<std::size_t>(length)) != entry.target)
    return not_as_locked(entry, "points elsewhere than locked");
  return {};
}

Result<void> LockedReader::read(const LockEntry& entry, const Take& take) {
  const UniqueFd fd = tree_->beneath(entry.path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) return not_as_locked(entry, "cannot be opened in the tree");
  if (!tree::has_shape(status, entry))
    return not_as_locked(entry, "its type, mode, owner or size is not as locked");
  JAIL_TRY(differences, tree::attribute_differences(fd.get(), entry.xattrs, tree_->shown(entry.path)));
  if (!differences.empty()) return not_as_locked(entry, "it " + differences.front());
  for (std::uint64_t left = entry.size; left > 0;) {
    const ssize_t got = ::pread(fd.get(), buffer_.data(), std::min<std::uint64_t>(buffer_.size(), left),
                                static_cast<off_t>(entry.size - left));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(Exit::io, errno, "{}: cannot read", tree_->shown(entry.path));
    if (got == 0) break;  // it became shorter: then its hash is another
    const std::string_view bytes(buffer_.data(), static_cast<std::size_t>(got));
    hash_.update(bytes);
    JAIL_CHECK(take(bytes));
    left -= bytes.size();
  }
  if (hash_.hex() != entry.sha256) return not_as_locked(entry, "its content is not as locked");
  return {};
}

Result<std::vector<std::string>> sha1_of_locked(const tree::RootDir& tree,
                                                const std::vector<const LockEntry*>& files) {
  JAIL_TRY(reader, LockedReader::make(tree));
  std::vector<std::string> all;
  for (const LockEntry* file : files) {
    Sha1 sha1;
    JAIL_CHECK(reader.read(*file, [&](std::string_view bytes) -> Result<void> {
      sha1.update(bytes);
      return {};
    }));
    all.push_back(sha1.hex());
  }
  return all;
}

}  // namespace jail::views
