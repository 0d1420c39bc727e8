#include "jailer/tree/lock_of_plan.h"

#include <sys/sysmacros.h>

#include <algorithm>

namespace jail::tree {
namespace {

LockEntry lock_entry(const Entry& entry, const Material* material) {
  LockEntry locked;
  locked.path = entry.path;
  locked.type = entry.type;
  locked.mode = entry.type == EntryType::symlink ? 0777 : entry.mode;
  locked.uid = entry.uid;
  locked.gid = entry.gid;
  locked.secret = entry.secret;
  locked.why = entry.why;
  if (entry.type == EntryType::symlink) locked.target = entry.target;
  if (entry.type == EntryType::character_device || entry.type == EntryType::block_device) {
    locked.major = major(entry.device);
    locked.minor = minor(entry.device);
  }
  if (material != nullptr) {
    locked.size = material->size;
    locked.sha256 = material->sha256;
    locked.xattrs = material->xattrs;
    locked.source = entry.source;
    locked.package = material->package;
    locked.package_version = material->version;
    locked.package_architecture = material->architecture;
  }
  return locked;
}

}  // namespace

Result<Lock> lock_of_plan(const Plan& plan, const std::vector<Material>& materials) {
  Lock lock;
  lock.name = plan.name;
  lock.distribution = plan.distribution;
  lock.entries.reserve(plan.entries.size());
  auto material = materials.begin();
  for (const auto& [path, entry] : plan.entries)
    lock.entries.push_back(lock_entry(entry, entry.type == EntryType::file ? &*material++ : nullptr));
  lock.tree_hash = tree_hash(lock.entries);
  lock.volumes = plan.volumes;
  std::sort(lock.volumes.begin(), lock.volumes.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return lock;
}

}  // namespace jail::tree
