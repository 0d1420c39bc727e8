#include "jailer/elf/ld_cache.h"

#include <algorithm>
#include <cstring>
#include <optional>

namespace jail::elf {
namespace {

constexpr std::string_view kOldMagic = "ld.so-1.7.0";
constexpr std::string_view kNewMagic = "glibc-ld.so.cache1.1";
constexpr std::size_t kOldHeader = 16;  // magic, padding, u32 nlibs
constexpr std::size_t kOldEntry = 12;
constexpr std::size_t kNewHeader = 48;
constexpr std::size_t kNewEntry = 24;
constexpr std::uint32_t kExtensionMagic = 0xEAA42174;
constexpr std::uint32_t kHwcapsTag = 1;

tl::unexpected<Error> broken(const char* what) {
  return with_hint(fail(Exit::manifest, "ld.so.cache: {}", what), "run ldconfig to write it anew");
}

}  // namespace

/// The bytes, and where the table of one layout stands in them.
struct LdCache::Layout {
  std::string_view bytes;
  bool big = false;
  std::size_t entries = 0;  ///< offset of the first entry
  std::size_t entry_size = 0;
  std::uint32_t count = 0;
  std::size_t strings = 0;  ///< what string offsets count from
  std::vector<std::string_view> hwcap_names;
  std::string problem;  ///< of the extensions

  [[nodiscard]] std::uint64_t number(std::size_t offset, int size) const {
    std::uint64_t value = 0;
    for (int i = 0; i < size; ++i) {
      const auto byte = static_cast<unsigned char>(bytes[offset + static_cast<std::size_t>(i)]);
      value |= std::uint64_t{byte} << (8 * (big ? size - 1 - i : i));
    }
    return value;
  }
  [[nodiscard]] std::uint32_t u32(std::size_t offset) const {
    return static_cast<std::uint32_t>(number(offset, 4));
  }

  [[nodiscard]] std::optional<std::string_view> text(std::size_t base, std::uint32_t index) const {
    if (index >= bytes.size() - base) return std::nullopt;
    const std::string_view rest = bytes.substr(base + index);
    const std::size_t end = rest.find('\0');
    if (end == std::string_view::npos) return std::nullopt;
    return rest.substr(0, end);
  }

  [[nodiscard]] bool fits(std::size_t offset, std::uint64_t n, std::size_t size) const {
    return offset <= bytes.size() && n <= (bytes.size() - offset) / size;
  }

  [[nodiscard]] Result<void> open_old() {
    if (bytes.size() < kOldHeader) return broken("file too short");
    count = u32(12);
    entries = kOldHeader;
    entry_size = kOldEntry;
    if (!fits(entries, count, entry_size)) return broken("more entries than the file can hold");
    strings = entries + count * kOldEntry;
    return {};
  }

  [[nodiscard]] Result<void> open_new(std::size_t at) {
    if (bytes.size() - at < kNewHeader) return broken("file too short");
    count = u32(at + 20);
    const unsigned flags = static_cast<unsigned char>(bytes[at + 28]);
    if (flags != 0 && (flags & 3U) != (big ? 3U : 2U)) return broken("written for the other byte order");
    entries = at + kNewHeader;
    entry_size = kNewEntry;
    if (!fits(entries, count, entry_size)) return broken("more entries than the file can hold");
    strings = at;
    const std::uint32_t extensions = u32(at + 32);
    if (extensions == 0) return {};
    const char* wrong = read_extensions(extensions);
    if (wrong != nullptr) hwcap_names.clear();
    problem = wrong == nullptr ? "" : wrong;
    return {};
  }

  /// The directory of extensions; only the names of glibc-hwcaps subdirectories matter to us. Its offsets,
  /// and those of the names, count from the start of the file, wherever the new format begins. What is wrong
  /// with it, or nullptr.
  [[nodiscard]] const char* read_extensions(std::uint32_t directory) {
    if (directory % 4 != 0 || !fits(directory, 1, 8)) return "its extension directory is misplaced";
    if (u32(directory) != kExtensionMagic) return "its extension directory is broken";
    const std::uint32_t sections = u32(directory + 4);
    if (!fits(directory + 8, sections, 16)) return "its extension directory is larger than the file";
    for (std::uint32_t i = 0; i < sections; ++i) {
      const std::size_t section = directory + 8 + std::size_t{i} * 16;
      const std::size_t offset = u32(section + 8);
      const std::uint32_t size = u32(section + 12);
      if (!fits(offset, size, 1)) return "an extension is larger than the file";
      if (u32(section) == kHwcapsTag) read_hwcap_names(offset, size);
    }
    return nullptr;
  }

  void read_hwcap_names(std::size_t offset, std::uint32_t size) {
    hwcap_names.clear();
    if (offset % 4 != 0 || size % 4 != 0) return;
    hwcap_names.reserve(size / 4);
    for (std::size_t at = offset; at < offset + size; at += 4)
      hwcap_names.push_back(text(0, u32(at)).value_or(std::string_view{}));
  }

  [[nodiscard]] std::optional<CacheEntry> entry(std::uint32_t index) const {
    const std::size_t at = entries + std::size_t{index} * entry_size;
    CacheEntry entry;
    entry.flags = static_cast<std::int32_t>(u32(at));
    const auto name = text(strings, u32(at + 4));
    const auto path = text(strings, u32(at + 8));
    if (!name || !path) return std::nullopt;
    entry.name = *name;
    entry.path = *path;
    if (entry_size == kNewEntry) entry.hwcap = number(at + 16, 8);
    if (entry.named()) {
      const auto number_of_name = static_cast<std::uint32_t>(entry.hwcap);
      if (number_of_name < hwcap_names.size()) entry.hwcap_name = hwcap_names[number_of_name];
    }
    return entry;
  }
};

Result<LdCache> LdCache::parse(std::string bytes, bool big_endian) {
  LdCache cache;
  cache.bytes_.assign(bytes.begin(), bytes.end());
  Layout layout;
  layout.bytes = std::string_view(cache.bytes_.data(), cache.bytes_.size());
  layout.big = big_endian;
  if (layout.bytes.substr(0, kNewMagic.size()) == kNewMagic) {
    JAIL_CHECK(layout.open_new(0));
  } else if (layout.bytes.substr(0, kOldMagic.size()) == kOldMagic) {
    JAIL_CHECK(layout.open_old());
    const std::size_t behind = (layout.strings + 7) / 8 * 8;
    if (behind <= layout.bytes.size() && layout.bytes.substr(behind, kNewMagic.size()) == kNewMagic) {
      JAIL_CHECK(layout.open_new(behind));
    }
  } else {
    return broken("not a cache that glibc knows");
  }
  cache.problem_ = std::move(layout.problem);
  cache.entries_.reserve(layout.count);
  for (std::uint32_t i = 0; i < layout.count; ++i) {
    const auto entry = layout.entry(i);
    if (!entry) continue;
    cache.names_[entry->name].push_back(static_cast<std::uint32_t>(cache.entries_.size()));
    cache.entries_.push_back(*entry);
  }
  return cache;
}

const std::vector<std::uint32_t>& LdCache::find(std::string_view name) const {
  static const std::vector<std::uint32_t> none;
  const auto found = names_.find(name);
  return found == names_.end() ? none : found->second;
}

}  // namespace jail::elf
