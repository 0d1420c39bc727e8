// mtree(5), with full paths, as libarchive and NetBSD's mtree read it.
#include "jailer/views/export.h"

namespace jail::views {
namespace {

/// Whatever could end a word, begin a comment or break a terminal, as \ooo.
std::string encoded(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte > ' ' && byte < 0x7f && c != '\\' && c != '#' && c != '=' && c != '*' &&
                       c != '?' && c != '[' && c != ']';
    out += plain ? std::string(1, c) : fmt::format("\\{:03o}", byte);
  }
  return out;
}

std::string by_type(const LockEntry& entry) {
  switch (entry.type) {
    case EntryType::directory:
      return "type=dir";
    case EntryType::file:
      return fmt::format("type=file size={} sha256digest={}", entry.size, entry.sha256);
    case EntryType::symlink:
      return "type=link link=" + encoded(entry.target);
    case EntryType::character_device:
      return fmt::format("type=char device=native,{},{}", entry.major, entry.minor);
    case EntryType::block_device:
      return fmt::format("type=block device=native,{},{}", entry.major, entry.minor);
  }
  return {};
}

}  // namespace

std::string export_mtree(const Lock& lock, const ExportOptions& options) {
  std::string text = "#mtree\n";
  for (const LockEntry& entry : lock.entries) {
    if (entry.secret && !options.with_secrets) continue;
    const std::string path = entry.path == "/" ? "." : "." + encoded(entry.path);
    text += fmt::format("{} {} mode={:04o} uid={} gid={}\n", path, by_type(entry), entry.mode, entry.uid,
                        entry.gid);
  }
  return text;
}

}  // namespace jail::views
