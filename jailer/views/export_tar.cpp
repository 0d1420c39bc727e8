// POSIX.1-2017, pax: "ustar Interchange Format" and "pax Header Block".
#include <algorithm>
#include <array>
#include <map>

#include "jailer/tree/acl.h"
#include "jailer/tree/lock_text.h"
#include "jailer/views/export.h"
#include "supervisor/base/quote.h"

namespace jail::views {
namespace {

constexpr std::size_t block = 512;
constexpr std::size_t record = 20 * block;  // tar pads its archives to this

struct Header {
  std::array<char, 100> name;
  std::array<char, 8> mode, uid, gid;
  std::array<char, 12> size, mtime;
  std::array<char, 8> checksum;
  char type;
  std::array<char, 100> link;
  std::array<char, 6> magic;
  std::array<char, 2> version;
  std::array<char, 32> user, group;
  std::array<char, 8> major, minor;
  std::array<char, 155> prefix;
  std::array<char, 12> unused;
};
static_assert(sizeof(Header) == block);

/// False where `value` has more digits than the field; what does not fit is for a pax header.
template <std::size_t size>
bool put_octal(std::array<char, size>& field, std::uint64_t value) {
  const std::string digits = fmt::format("{:0{}o}", value, size - 1);
  if (digits.size() > size - 1) return false;
  std::copy(digits.begin(), digits.end(), field.begin());
  return true;
}

template <std::size_t size>
bool put_text(std::array<char, size>& field, std::string_view text) {
  if (text.size() > size) return false;
  std::copy(text.begin(), text.end(), field.begin());
  return true;
}

/// The name, or its two halves in prefix and name.
bool put_name(Header& header, std::string_view name) {
  if (put_text(header.name, name)) return true;
  for (std::size_t slash = name.find('/', name.size() - header.name.size() - 1);
       slash != std::string_view::npos && slash <= header.prefix.size(); slash = name.find('/', slash + 1)) {
    if (slash == 0 || slash + 1 == name.size()) continue;
    return put_text(header.prefix, name.substr(0, slash)) && put_text(header.name, name.substr(slash + 1));
  }
  return false;
}

char type_flag(EntryType type) {
  switch (type) {
    case EntryType::file:
      return '0';
    case EntryType::symlink:
      return '2';
    case EntryType::character_device:
      return '3';
    case EntryType::block_device:
      return '4';
    case EntryType::directory:
      return '5';
  }
  return '0';
}

std::string_view bytes_of(const Header& header) {
  return {reinterpret_cast<const char*>(&header), sizeof header};  // NOLINT: it is made of chars
}

Header blank(char type) {
  Header header{};
  header.type = type;
  header.magic = {'u', 's', 't', 'a', 'r', '\0'};
  header.version = {'0', '0'};
  return header;
}

void seal(Header& header) {
  header.checksum.fill(' ');
  unsigned sum = 0;
  for (const char c : bytes_of(header)) sum += static_cast<unsigned char>(c);
  const std::string digits = fmt::format("{:06o}", sum);
  std::copy(digits.begin(), digits.end(), header.checksum.begin());
  header.checksum[6] = '\0';
}

/// "LENGTH key=value\n", whose length counts itself.
std::string pax_record(const std::string& key, const std::string& value) {
  const std::size_t rest = key.size() + value.size() + 3;  // a space, '=', a newline
  std::size_t length = rest + 1;
  while (length != rest + std::to_string(length).size()) length = rest + std::to_string(length).size();
  return fmt::format("{} {}={}\n", length, key, value);
}

class Writer {
 public:
  Writer(LockedReader reader, const ExportOptions& options, const Take& write)
      : reader_(std::move(reader)), options_(options), write_(write) {}

  Result<void> add(const LockEntry& entry) {
    JAIL_CHECK(reader_.check(entry));
    std::map<std::string, std::string> pax;
    Header header = header_of(entry, pax);
    if (!pax.empty()) JAIL_CHECK(put_pax(pax));
    seal(header);
    JAIL_CHECK(put(bytes_of(header)));
    if (entry.type != EntryType::file) return {};
    JAIL_CHECK(reader_.read(entry, [this](std::string_view bytes) { return put(bytes); }));
    return pad(block);
  }

  Result<void> end() {
    const std::string mark(2 * block, '\0');
    JAIL_CHECK(put(mark));
    return pad(record);
  }

 private:
  Header header_of(const LockEntry& entry, std::map<std::string, std::string>& pax) const {
    Header header = blank(type_flag(entry.type));
    const bool directory = entry.type == EntryType::directory;
    const std::string name = entry.path == "/" ? "./" : "./" + entry.path.substr(1) + (directory ? "/" : "");
    if (!put_name(header, name)) {
      pax["path"] = name;
      (void)put_text(header.name, std::string_view(name).substr(0, header.name.size()));
    }
    if (!put_text(header.link, entry.target)) {
      pax["linkpath"] = entry.target;  // bsdtar takes a link without the other for a file
      (void)put_text(header.link, std::string_view(entry.target).substr(0, header.link.size()));
    }
    put_octal(header.mode, entry.mode);
    put_number(header.uid, entry.uid, "uid", pax);
    put_number(header.gid, entry.gid, "gid", pax);
    put_number(header.size, entry.size, "size", pax);
    put_number(header.mtime, static_cast<std::uint64_t>(options_.time), "mtime", pax);
    put_number(header.major, entry.major, "SCHILY.devmajor", pax);
    put_number(header.minor, entry.minor, "SCHILY.devminor", pax);
    // By the name that star gave them, and GNU tar and libarchive took over.
    for (const auto& [attribute, value] : entry.xattrs) pax["SCHILY.xattr." + attribute] = value;
    // An ACL once more: libarchive, and GNU tar with --acls, take it in this form alone.
    if (const auto acl = entry.xattrs.find(tree::access_acl); acl != entry.xattrs.end())
      pax["SCHILY.acl.access"] = tree::acl_text(acl->second);
    // Values of pax are UTF-8 unless said otherwise.
    for (const char* key : {"path", "linkpath"}) {
      const auto value = pax.find(key);
      if (value == pax.end() || tree::to_text(value->second).find("\\x") == std::string::npos) continue;
      pax["hdrcharset"] = "BINARY";
      break;
    }
    return header;
  }

  template <std::size_t size>
  static void put_number(std::array<char, size>& field, std::uint64_t value, const char* key,
                         std::map<std::string, std::string>& pax) {
    if (put_octal(field, value)) return;
    put_octal(field, 0);
    pax[key] = std::to_string(value);
  }

  Result<void> put_pax(const std::map<std::string, std::string>& pax) {
    std::string text;
    // The character set counts for what follows it.
    if (const auto set = pax.find("hdrcharset"); set != pax.end()) text = pax_record(set->first, set->second);
    for (const auto& [key, value] : pax)
      if (key != "hdrcharset") text += pax_record(key, value);
    Header header = blank('x');
    (void)put_text(header.name, "./PaxHeaders");
    put_octal(header.mode, 0644);
    put_octal(header.uid, 0);
    put_octal(header.gid, 0);
    put_octal(header.size, text.size());
    put_octal(header.mtime, 0);
    seal(header);
    JAIL_CHECK(put(bytes_of(header)));
    JAIL_CHECK(put(text));
    return pad(block);
  }

  Result<void> pad(std::size_t unit) {
    const std::string zeros((unit - written_ % unit) % unit, '\0');
    return put(zeros);
  }

  Result<void> put(std::string_view bytes) {
    written_ += bytes.size();
    return write_(bytes);
  }

  LockedReader reader_;
  const ExportOptions& options_;
  const Take& write_;
  std::uint64_t written_ = 0;
};

}  // namespace

Result<void> export_tar(const Lock& lock, const tree::RootDir& tree, const ExportOptions& options,
                        const Take& write) {
  JAIL_TRY(reader, LockedReader::make(tree));
  Writer writer(std::move(reader), options, write);
  for (const LockEntry& entry : lock.entries) {
    if (entry.secret && !options.with_secrets) continue;
    JAIL_CHECK(writer.add(entry));
  }
  return writer.end();
}

}  // namespace jail::views
