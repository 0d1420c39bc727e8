#include "jailer/tree/populate.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/sysmacros.h>

#include <cerrno>

#include "jailer/tree/write_error.h"
#include "supervisor/base/quote.h"
#include "supervisor/spec/instance.h"

namespace jail::tree {
namespace {

/// What is wrong with `entry`; empty if nothing is.
std::string problem_of(const Plan& plan, const std::string& path, const Entry& entry) {
  if (entry.path != path || !is_clean(path)) return "not a clean absolute path";
  if (path != "/") {
    const auto parent = plan.entries.find(std::string(parent_of(path)));
    if (parent == plan.entries.end() || parent->second.type != EntryType::directory)
      return "its directory is not in the plan";
  } else if (entry.type != EntryType::directory) {
    return "the root must be a directory";
  }
  if (entry.mode > 07777) return fmt::format("mode {:o} is not a mode", entry.mode);
  if (entry.type == EntryType::file && !entry.content && (!is_clean(entry.source) || entry.source == "/"))
    return fmt::format("its source {} is not a clean absolute path", quote(entry.source));
  if (entry.type == EntryType::file && entry.content && !entry.source.empty())
    return "it has content and a source";
  if (!entry.xattrs.empty() && (entry.type != EntryType::file || entry.content))
    return "it has attributes and no source";
  const std::string& target = entry.target;
  if (entry.type == EntryType::symlink &&
      (target.empty() || target.size() >= PATH_MAX || target.find('\0') != std::string::npos))
    return fmt::format("{} cannot be the target of a link", quote(target));
  return {};
}

class Populator {
 public:
  Populator(const RootDir& sources, const RootDir& tree, const Store& store)
      : sources_(sources), tree_(tree), store_(store), cursor_(tree, Cursor::Kind::beneath) {}

  Result<void> make(const Entry& entry, const Material* material) {
    if (entry.path == "/") return finish(tree_.fd(), entry);
    const Cursor::Place place = cursor_.at(entry.path);
    if (place.parent < 0)
      return fail_errno(Exit::cannot_create, errno, "{}: cannot open its directory in the new tree",
                        quote(entry.path));
    switch (entry.type) {
      case EntryType::directory:
        return directory(place, entry);
      case EntryType::file:
        if (material->shared) return store_.link(material->object(), place.parent, place.name, entry.path);
        return entry.content ? generated(place, entry) : copied(place, entry, *material);
      case EntryType::symlink:
        if (::symlinkat(entry.target.c_str(), place.parent, place.name) != 0)
          return failed(entry, "make the link");
        return own(place, entry);
      case EntryType::character_device:
      case EntryType::block_device:
        return device(place, entry);
    }
    return fail(Exit::internal, "{}: an entry of no known type", quote(entry.path));
  }

 private:
  static tl::unexpected<Error> failed(const Entry& entry, const char* doing) {
    return fail_write(errno, "{}: cannot {} in the new tree", quote(entry.path), doing);
  }

  static Result<void> own(const Cursor::Place& place, const Entry& entry) {
    if (::fchownat(place.parent, place.name, entry.uid, entry.gid, AT_SYMLINK_NOFOLLOW) == 0) return {};
    return failed(entry, "set the owner");
  }

  /// Owner before mode: a chown takes set-id bits away.
  static Result<void> finish(int fd, const Entry& entry) {
    if (::fchown(fd, entry.uid, entry.gid) != 0) return failed(entry, "set the owner");
    if (::fchmod(fd, entry.mode) != 0) return failed(entry, "set the mode");
    return {};
  }

  static Result<void> directory(const Cursor::Place& place, const Entry& entry) {
    if (::mkdirat(place.parent, place.name, 0700) != 0) return failed(entry, "make the directory");
    const UniqueFd fd(::openat(place.parent, place.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd) return failed(entry, "open the directory");
    return finish(fd.get(), entry);
  }

  static Result<UniqueFd> new_file(const Cursor::Place& place, const Entry& entry) {
    UniqueFd fd(::openat(place.parent, place.name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!fd) return failed(entry, "make the file");
    return fd;
  }

  static Result<void> generated(const Cursor::Place& place, const Entry& entry) {
    JAIL_TRY(fd, new_file(place, entry));
    JAIL_CHECK(write_whole(fd.get(), *entry.content, quote(entry.path)));
    return finish(fd.get(), entry);
  }

  /// A file of its own: small ones, and secrets.
  Result<void> copied(const Cursor::Place& place, const Entry& entry, const Material& material) {
    JAIL_TRY(source, open_source(sources_, entry.source));
    JAIL_TRY(fd, new_file(place, entry));
    Worker worker{{}, std::move(buffer_)};
    // Hashed although the stamp is known: two writes within one tick of the clock have one stamp.
    JAIL_TRY(copied, copy_bytes(source, fd.get(), entry.path, true, worker));
    buffer_ = std::move(worker.buffer);
    JAIL_TRY(xattrs, read_attributes(source.fd.get(), entry.xattrs, entry.mode, source.shown));
    if (copied != material.sha256 || xattrs != material.xattrs || !unchanged(source))
      return with_hint(fail(Exit::io, "{}: changed during the build", source.shown), "build again");
    JAIL_CHECK(finish(fd.get(), entry));
    return set_attributes(fd.get(), xattrs, quote(entry.path));
  }

  static Result<void> device(const Cursor::Place& place, const Entry& entry) {
    const mode_t type = entry.type == EntryType::block_device ? S_IFBLK : S_IFCHR;
    if (::mknodat(place.parent, place.name, type | 0600U, entry.device) != 0) {
      if (errno != EPERM) return failed(entry, "make the device node");
      return with_hint(fail_errno(Exit::host, errno, "{}: cannot make the device node {}:{}",
                                  quote(entry.path), major(entry.device), minor(entry.device)),
                       "device nodes need CAP_MKNOD and a file system that allows them: run this outside of "
                       "the container");
    }
    JAIL_CHECK(own(place, entry));
    if (::fchmodat(place.parent, place.name, entry.mode, AT_SYMLINK_NOFOLLOW) != 0)
      return failed(entry, "set the mode");
    return {};
  }

  const RootDir& sources_;
  const RootDir& tree_;
  const Store& store_;
  Cursor cursor_;
  std::string buffer_;
};

}  // namespace

Result<void> check_plan(const Plan& plan) {
  if (!valid_name(plan.name)) return fail(Exit::usage, "{} cannot be the name of a jail", quote(plan.name));
  if (!plan.entries.contains("/"))
    return fail(Exit::internal, "{}: the plan has no root directory", plan.name);
  for (const auto& [path, entry] : plan.entries)
    if (const std::string problem = problem_of(plan, path, entry); !problem.empty())
      return fail(Exit::internal, "{}: the plan's entry {}: {}", plan.name, quote(path), problem);
  for (const PlannedVolume& volume : plan.volumes)
    if (!valid_name(volume.name) || !is_clean(volume.path) || volume.mode > 07777)
      return fail(Exit::manifest, "{}: {} cannot be a volume", plan.name, quote(volume.name));
  return {};
}

Result<void> populate(const Plan& plan, const std::vector<Material>& materials, const RootDir& sources,
                      const RootDir& tree, const Store& store) {
  Populator populator(sources, tree, store);
  auto material = materials.begin();
  for (const auto& [path, entry] : plan.entries) {
    const bool file = entry.type == EntryType::file;
    JAIL_CHECK(populator.make(entry, file ? &*material : nullptr));
    if (file) ++material;
  }
  return {};
}

}  // namespace jail::tree
