#include "jailer/tree/materials.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <future>

#include "jailer/closure/packages.h"
#include "jailer/elf/mentions.h"
#include "supervisor/base/quote.h"

namespace jail::tree {
namespace {

std::string host_path(const RootDir& root, const std::string& source) {
  return root.name() == "/" ? source : root.name() + source;
}

/// The state of dpkg's database.
std::string package_database_stamp(const RootDir& root) {
  std::string text;
  for (const char* file : package_database) {
    struct stat status {};
    const UniqueFd fd = root.in_root(file, O_PATH);
    if (fd && ::fstat(fd.get(), &status) == 0)
      text += fmt::format("{}:{}:{};", status.st_ino, status.st_size, nanoseconds(status.st_ctim));
    else
      text += "-;";
  }
  return text;
}

class Collector {
 public:
  Collector(const Plan& plan, const RootDir& root, Store& store, Sharing sharing)
      : plan_(plan),
        root_(root),
        store_(store),
        sharing_(sharing),
        begun_(file_clock()),
        database_(package_database_stamp(root)) {}

  Result<std::vector<Material>> run() {
    Cursor cursor(root_, Cursor::Kind::in_root);
    for (const auto& [path, entry] : plan_.entries) {
      if (entry.type != EntryType::file) continue;
      Material& material = materials_.emplace_back();
      material.entry = &entry;
      if (entry.content)
        generated(material);
      else
        JAIL_CHECK(look_up(cursor, material));
    }
    // While files are read and hashed: it is a thousand small files of their own.
    auto packages = begin_packages();
    JAIL_CHECK(read_unknown());
    JAIL_CHECK(take_packages(packages.get()));
    return std::move(materials_);
  }

 private:
  static void generated(Material& material) {
    material.sha256 = sha256_hex(*material.entry->content);
    material.size = material.entry->content->size();
  }

  /// One stat: the hash of a source that is as it was needs no reading.
  Result<void> look_up(Cursor& cursor, Material& material) {
    const Entry& entry = *material.entry;
    const Cursor::Place place = cursor.at(entry.source);
    struct stat status {};
    if (place.parent < 0 || ::fstatat(place.parent, place.name, &status, AT_SYMLINK_NOFOLLOW) != 0)
      return fail_errno(errno == ENOENT || errno == ENOTDIR ? Exit::no_input : Exit::io, errno,
                        "{}: cannot open (for {})", root_.shown(entry.source), quote(entry.path));
    if (!S_ISREG(status.st_mode))
      return fail(Exit::no_input, "{}: not a regular file (for {})", root_.shown(entry.source),
                  quote(entry.path));
    material.size = static_cast<std::uint64_t>(status.st_size);
    material.stamp = stamp_of(status);
    material.shared = sharing_ == Sharing::store && material.size > share_above && !entry.secret;
    const auto known = store_.index.sources.find(host_path(root_, entry.source));
    if (known != store_.index.sources.end() && known->second.device == status.st_dev &&
        known->second.stamp == material.stamp && !known->second.sha256.empty()) {
      JAIL_TRY(same, look_at_attributes(material));
      if (!same) {
        unknown_.push_back(&material - materials_.data());
        return {};
      }
      material.sha256 = known->second.sha256;
      material.mentions = known->second.mentions;
    } else {
      unknown_.push_back(&material - materials_.data());
    }
    return {};
  }

  /// The index knows bytes alone: attributes are read at every build. False where the source has changed
  /// since the look.
  Result<bool> look_at_attributes(Material& material) const {
    const Entry& entry = *material.entry;
    if (entry.xattrs.empty()) return true;
    JAIL_TRY(source, open_source(root_, entry.source));
    JAIL_TRY(xattrs, read_attributes(source.fd.get(), entry.xattrs, entry.mode, source.shown));
    material.xattrs = std::move(xattrs);
    return stamp_of(source.status) == material.stamp && unchanged(source);
  }

  /// The largest first, so that the last ones to finish are small.
  Result<void> read_unknown() {
    std::sort(unknown_.begin(), unknown_.end(),
              [&](auto a, auto b) { return at(a).size != at(b).size ? at(a).size > at(b).size : a < b; });
    std::uint64_t bytes = 0;
    for (const auto i : unknown_) bytes += at(i).size;
    std::vector<struct stat> seen(unknown_.size());
    JAIL_CHECK(parallel(unknown_.size(), bytes, [&](std::size_t i, Worker& worker) {
      return read_one(at(unknown_[i]), seen[i], worker);
    }));
    for (std::size_t i = 0; i < unknown_.size(); ++i) learn(at(unknown_[i]), seen[i]);
    return {};
  }

  Result<void> read_one(Material& material, struct stat& status, Worker& worker) const {
    const Entry& entry = *material.entry;
    if (material.shared) {
      Object object = material.object();
      JAIL_CHECK(store_.ingest(root_, entry, object, status, worker));
      material.sha256 = std::move(object.sha256);
      material.xattrs = std::move(object.xattrs);
      material.size = object.size;
      material.checked = true;
    } else {
      JAIL_TRY(source, open_source(root_, entry.source));
      JAIL_TRY(xattrs, read_attributes(source.fd.get(), entry.xattrs, entry.mode, source.shown));
      JAIL_TRY(hash, hash_file(source.fd.get(), worker.hash, worker.buffer, source.shown));
      if (!unchanged(source))
        return with_hint(fail(Exit::io, "{}: changed while it was read", source.shown), "build again");
      status = source.status;
      material.sha256 = std::move(hash);
      material.xattrs = std::move(xattrs);
      material.size = static_cast<std::uint64_t>(status.st_size);
    }
    material.stamp = stamp_of(status);
    return find_mentions(material);
  }

  /// While its bytes are at hand. Of a file that changes meanwhile the stamp is another, and it is read
  /// again.
  Result<void> find_mentions(Material& material) const {
    JAIL_TRY(source, open_source(root_, material.entry->source));
    material.mentions = elf::library_mentions(
        elf::FdSource(source.fd.get(), static_cast<std::uint64_t>(source.status.st_size)));
    return {};
  }

  void learn(const Material& material, const struct stat& status) {
    const std::string path = host_path(root_, material.entry->source);
    if (material.entry->secret) {
      // Its package alone, no hash: it is read at every build.
      SourceRecord& record = store_.index.sources[path];
      record.device = status.st_dev;
      record.stamp = material.stamp;
      record.sha256.clear();
    } else if (material.stamp.ctime >= begun_) {  // may still change without a new stamp
      store_.index.sources.erase(path);
    } else {
      store_.index.sources[path] = {status.st_dev,    material.stamp, material.sha256, "?", "", "", "",
                                    material.mentions};
    }
  }

  /// dpkg's lists are read only when a source is new or dpkg has run since.
  std::future<Result<PackageDatabase>> begin_packages() {
    std::vector<bool> unknown(materials_.size());
    for (const auto i : unknown_) unknown[static_cast<std::size_t>(i)] = true;
    std::vector<std::string> asked;
    for (std::size_t i = 0; i < materials_.size(); ++i) {
      const std::string& path = materials_[i].entry->source;
      if (path.empty()) continue;
      const SourceRecord* record = record_of(materials_[i]);
      if (unknown[i] || record == nullptr || record->database != database_) asked.push_back(path);
    }
    auto find = [root = root_.name(), asked] { return PackageDatabase::open(root, asked); };
    return asked.empty() ? std::async(std::launch::deferred, find) : in_background(find);
  }

  Result<void> take_packages(Result<PackageDatabase> packages) {
    if (!packages) return tl::unexpected(std::move(packages).error());
    for (Material& material : materials_) {
      if (material.entry->source.empty()) continue;
      SourceRecord* record = record_of(material);
      if (record != nullptr && record->database == database_) {
        material.package = record->package;
        material.version = record->version;
        material.architecture = record->architecture;
        continue;
      }
      if (const auto owner = packages->owner(material.entry->source)) {
        material.package = owner->package;
        material.version = owner->version;
        material.architecture = owner->architecture;
      }
      if (record == nullptr) continue;
      record->database = database_;
      record->package = material.package;
      record->version = material.version;
      record->architecture = material.architecture;
    }
    return {};
  }

  SourceRecord* record_of(const Material& material) {
    const auto known = store_.index.sources.find(host_path(root_, material.entry->source));
    return known == store_.index.sources.end() ? nullptr : &known->second;
  }
  Material& at(std::ptrdiff_t index) { return materials_[static_cast<std::size_t>(index)]; }

  const Plan& plan_;
  const RootDir& root_;
  Store& store_;
  Sharing sharing_;
  std::int64_t begun_;
  std::string database_;
  std::vector<Material> materials_;
  std::vector<std::ptrdiff_t> unknown_;
};

}  // namespace

Result<std::vector<Material>> collect_materials(const Plan& plan, const RootDir& root, Store& store,
                                                Sharing sharing) {
  return Collector(plan, root, store, sharing).run();
}

Result<void> check_objects(const RootDir& root, std::vector<Material>& materials, const Store& store) {
  std::vector<Material*> unchecked;
  std::uint64_t bytes = 0;
  for (Material& material : materials) {
    if (!material.shared || material.checked) continue;
    unchecked.push_back(&material);
    bytes += store.known(material.object().key()) == nullptr ? material.size : 0;
  }
  return parallel(unchecked.size(), bytes, [&](std::size_t i, Worker& worker) -> Result<void> {
    JAIL_CHECK(store.ensure(root, *unchecked[i]->entry, unchecked[i]->object(), worker));
    unchecked[i]->checked = true;
    return {};
  });
}

}  // namespace jail::tree
