#include "jailer/elf/mentions.h"

#include <elf.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <memory>
#include <set>

#include "jailer/elf/elf_view.h"

namespace jail::elf {
namespace {

constexpr std::size_t chunk = std::size_t{1} << 20U;
constexpr std::size_t longest = 1024;  // of a string; chunks overlap by it
constexpr std::size_t max_mentions = 256;
constexpr std::string_view suffix = ".so";

bool in_name(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
         std::string_view("._+-/@:").find(c) != std::string_view::npos;
}

/// ".so" at the end, or a version behind it.
bool is_library(std::string_view text) {
  const std::string_view name = text.substr(text.rfind('/') + 1);
  const std::size_t at = name.rfind(suffix);
  if (at == 0 || at == std::string_view::npos) return false;
  const std::string_view version = name.substr(at + suffix.size());
  const bool numbered = version.size() > 1 && version.front() == '.' && version.back() != '.' &&
                        std::isdigit(static_cast<unsigned char>(version[1])) != 0;  // not ld.so.cache
  if (!version.empty() && !numbered) return false;
  return text.front() == '/' || (name.size() == text.size() && name.starts_with("lib") && at > 3);
}

class Finder {
 public:
  /// `bytes` begin at a string's end or at the segment's; strings that reach the last `longest` bytes are
  /// left for the next chunk.
  void look(std::string_view bytes) {
    const char* at = bytes.data();
    const char* const end = bytes.data() + bytes.size();
    while (found_.size() < max_mentions) {
      at = static_cast<const char*>(
          ::memmem(at, static_cast<std::size_t>(end - at), suffix.data(), suffix.size()));
      if (at == nullptr) return;
      const char* first = at;
      const char* last = at + suffix.size();
      while (first > bytes.data() && in_name(first[-1])) --first;
      while (last < end && in_name(*last)) ++last;
      const bool whole = first > bytes.data() && first[-1] == '\0' && last < end && *last == '\0';
      const std::string_view text(first, static_cast<std::size_t>(last - first));
      if (whole && text.size() <= longest && is_library(text)) found_.emplace(text);
      at = last;
    }
  }
  [[nodiscard]] std::vector<std::string> result() const { return {found_.begin(), found_.end()}; }

 private:
  std::set<std::string> found_;
};

void look_into(const ByteSource& source, const Segment& segment, std::uint8_t* bytes, Finder& finder) {
  const std::uint64_t size = source.size();
  if (segment.offset > size) return;
  const std::uint64_t end = segment.offset + std::min(segment.file_size, size - segment.offset);
  for (std::uint64_t at = segment.offset; at < end;) {
    const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(chunk, end - at));
    const std::size_t got = source.read(at, bytes, wanted);
    finder.look({reinterpret_cast<const char*>(bytes), got});
    if (got < wanted || at + got >= end) return;
    at += got - longest;
  }
}

/// Constant data has a segment of its own, but for what was linked in older ways.
std::vector<Segment> constant_segments(const std::vector<Segment>& all) {
  std::vector<Segment> plain;
  std::vector<Segment> with_code;
  for (const Segment& segment : all) {
    if (segment.type != PT_LOAD || (segment.flags & PF_W) != 0) continue;
    ((segment.flags & PF_X) != 0 ? with_code : plain).push_back(segment);
  }
  // The first one holds headers and symbols.
  return plain.size() >= 2 ? plain : with_code;
}

}  // namespace

std::vector<std::string> library_mentions(const ByteSource& source) {
  const Header header = read_header(source);
  const bool known = header.abi.elf_class == ELFCLASS32 || header.abi.elf_class == ELFCLASS64;
  if (!header.magic || !header.complete || !known) return {};
  View view(source, header);
  if (!view.read_segments(header)) return {};
  // What calls nothing loads nothing: the 30 MiB of ICU's data, say.
  const auto elf = read_elf(source);
  if (!elf || !calls_anything(source, *elf)) return {};
  Finder finder;
  const auto bytes = std::make_unique_for_overwrite<std::uint8_t[]>(chunk);
  std::uint64_t budget = source.size();  // segments may lie over each other in the file
  for (const Segment& segment : constant_segments(view.segments())) {
    if (segment.file_size > budget) break;
    budget -= segment.file_size;
    look_into(source, segment, bytes.get(), finder);
  }
  return finder.result();
}

}  // namespace jail::elf
