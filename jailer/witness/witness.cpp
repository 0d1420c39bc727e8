#include "jailer/witness/witness.h"

#include <fcntl.h>

#include <algorithm>
#include <charconv>
#include <string_view>
#include <tuple>

#include "supervisor/base/io.h"
#include "supervisor/spec/generation.h"

namespace jail {
namespace {

constexpr std::string_view head = "jail-witness 1";
constexpr const char* file_name = "witness";
constexpr std::size_t max_size = 64UL << 20U;

/// The numbers that stand for a path. Those that do not count are 0; all are where nothing is there.
struct Sight {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t mode = 0;
  std::uint64_t owner = 0;
  std::uint64_t size = 0;
  std::int64_t mtime = 0;
  std::int64_t ctime = 0;
  bool operator==(const Sight&) const = default;
};

/// Nothing for an error that does not say whether something is there.
std::optional<Sight> see(const std::string& path, LookAt how) {
  struct stat status {};
  const bool follow = how == LookAt::file || how == LookAt::directory;
  if (::fstatat(AT_FDCWD, path.c_str(), &status, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0)
    return errno == ENOENT || errno == ENOTDIR ? std::optional(Sight{}) : std::nullopt;
  Sight sight;
  if (how == LookAt::presence) {
    sight.mode = S_IFMT;
    return sight;
  }
  sight.mode = status.st_mode;
  sight.owner = (std::uint64_t{status.st_uid} << 32U) | std::uint64_t{status.st_gid};
  if (how == LookAt::volume) return sight;
  sight.device = status.st_dev;
  sight.inode = status.st_ino;
  // On the way to a file, or as a mount's source, a directory is only the one that it is.
  if (how == LookAt::directory || !S_ISDIR(status.st_mode)) {
    sight.size = static_cast<std::uint64_t>(status.st_size);
    sight.mtime = nanoseconds(status.st_mtim);
    sight.ctime = nanoseconds(status.st_ctim);
  }
  return sight;
}

class Writer {
 public:
  void text(std::string_view field) { bytes.append(field).push_back('\0'); }
  template <class Integer>
  void number(Integer value) {
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
    text({digits, static_cast<std::size_t>(end - digits)});
  }
  void sight(const Sight& sight) {
    number(sight.device);
    number(sight.inode);
    number(sight.mode);
    number(sight.owner);
    number(sight.size);
    number(sight.mtime);
    number(sight.ctime);
  }
  std::string bytes;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  [[nodiscard]] bool good() const { return good_; }
  [[nodiscard]] bool done() const { return rest_.empty(); }
  std::string_view text() {
    const std::size_t end = rest_.find('\0');
    if (end == std::string_view::npos) {
      good_ = false;
      rest_ = {};
      return {};
    }
    const std::string_view field = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return field;
  }
  template <class Integer>
  void number(Integer& value) {
    const std::string_view field = text();
    const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
    if (error != std::errc{} || end != field.data() + field.size()) good_ = false;
  }
  Sight sight() {
    Sight sight;
    number(sight.device);
    number(sight.inode);
    number(sight.mode);
    number(sight.owner);
    number(sight.size);
    number(sight.mtime);
    number(sight.ctime);
    return sight;
  }

 private:
  std::string_view rest_;
  bool good_ = true;
};

/// Who builds, and for which instance: another program, or another list of directories, builds otherwise.
std::string maker(const Instance& instance) {
  const auto self = see("/proc/self/exe", LookAt::file);
  Writer out;
  out.text(JAIL_VERSION);
  out.sight(self.value_or(Sight{}));
  for (const std::string& part : {instance.state, instance.run, instance.log, instance.etc}) out.text(part);
  for (const std::string& directory : instance.manifest_dirs) out.text(directory);
  return std::move(out.bytes);
}

void put_head(Writer& out, const Instance& instance, const Standing& standing) {
  out.text(head);
  const std::string by = maker(instance);
  out.number(by.size());
  out.bytes += by;
  out.number(standing.files);
  out.number(standing.bytes);
  out.number(standing.warnings.size());
  for (const std::string& warning : standing.warnings) out.text(warning);
}

/// Whether the head is one for this program and instance; fills `standing`.
bool take_head(Reader& in, std::string_view bytes, const Instance& instance, Standing& standing) {
  if (in.text() != head) return false;
  std::size_t size = 0;
  in.number(size);
  const std::string by = maker(instance);
  if (!in.good() || size != by.size() || bytes.find(by) == std::string_view::npos) return false;
  // `by` is fields, too: read them off one by one.
  for (std::size_t taken = 0; taken < size && in.good();) taken += in.text().size() + 1;
  std::size_t warnings = 0;
  in.number(standing.files);
  in.number(standing.bytes);
  in.number(warnings);
  for (std::size_t i = 0; i < warnings && in.good(); ++i) standing.warnings.emplace_back(in.text());
  return in.good();
}

}  // namespace

std::optional<Standing> still_standing(const Instance& instance, const std::string& name) {
  const auto current = generation::open_current(instance, name);
  if (!current) return std::nullopt;
  const auto bytes = read_file_at(current->dir.get(), file_name, max_size, false);
  if (!bytes) return std::nullopt;
  Standing standing;
  standing.generation = current->number;
  Reader in(*bytes);
  if (!take_head(in, *bytes, instance, standing)) return std::nullopt;
  std::string path;
  while (in.good() && !in.done()) {
    const std::string_view how = in.text();
    path = in.text();
    const Sight then = in.sight();
    if (!in.good() || how.size() != 1) return std::nullopt;
    const auto now = see(path, LookAt{how.front()});
    if (!now || *now != then) return std::nullopt;
  }
  return in.good() ? std::optional(std::move(standing)) : std::nullopt;
}

void leave_witness(const Instance& instance, int generation, const Standing& standing, const Looks& looks) {
  if (looks.spoilt()) return;
  std::vector<const Look*> sorted;
  sorted.reserve(looks.all().size());
  for (const Look& look : looks.all()) sorted.push_back(&look);
  const auto place = [](const Look* look) { return std::tie(look->path, look->how); };
  const auto all = [](const Look* look) {
    return std::tie(look->path, look->how, look->device, look->inode);
  };
  std::sort(sorted.begin(), sorted.end(), [&](auto a, auto b) { return all(a) < all(b); });
  sorted.erase(std::unique(sorted.begin(), sorted.end(), [&](auto a, auto b) { return all(a) == all(b); }),
               sorted.end());
  Writer out;
  put_head(out, instance, standing);
  const Look* before = nullptr;
  for (const Look* look : sorted) {
    if (before != nullptr && place(before) == place(look)) return;  // it changed between two looks
    before = look;
    const auto sight = see(look->path, look->how);
    if (!sight || sight->device != look->device || sight->inode != look->inode) return;
    if (sight->ctime >= looks.begun()) return;
    out.text({reinterpret_cast<const char*>(&look->how), 1});
    out.text(look->path);
    out.sight(*sight);
  }
  (void)replace_file_at(generation, file_name, out.bytes, 0600, false);
}

}  // namespace jail
