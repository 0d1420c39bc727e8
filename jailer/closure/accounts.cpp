// passwd and group of a root, read as files, and the ones written into the tree. NSS is never asked: it would
// load code, and could answer with accounts that the root does not have.
#include "jailer/closure/accounts.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "jailer/closure/source_root.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

constexpr std::size_t max_accounts_file = 64U << 20U;

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

/// A decimal id, digits only; 4294967295 is "no id" to the kernel.
std::optional<std::uint32_t> parse_id(std::string_view text) {
  std::uint32_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size() || text.empty() || id == UINT32_MAX)
    return std::nullopt;
  return id;
}

bool printable(std::string_view line) {
  return std::none_of(line.begin(), line.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7f;
  });
}

/// Calls `use(fields)` for each line of a colon separated file that has `count` of them; `use` says what is
/// wrong.
template <class Use>
Result<void> for_each_record(const SourceRoot& root, const std::string& path, std::size_t count, Use use) {
  const auto text = root.read(path, max_accounts_file);
  if (!text) {
    if (text.error().exit == Exit::no_input) return {};  // a root without accounts has none
    return tl::unexpected(text.error());
  }
  unsigned number = 0;
  for (const std::string_view line : split(*text, '\n')) {
    ++number;
    // '+' and '-' are NIS's, which the files themselves do not answer.
    if (line.empty() || line.front() == '#' || line.front() == '+' || line.front() == '-') continue;
    const auto fields = split(line, ':');
    const char* wrong = nullptr;
    if (!printable(line)) {
      wrong = "control bytes in the line";
    } else if (fields.size() != count || fields[0].empty()) {
      wrong = "not the number of fields that it must have";
    } else {
      wrong = use(fields);
    }
    if (wrong != nullptr) {
      return with_hint(fail(Exit::config, "{}:{}: {}: {}", path, number, wrong, quote(line, 80)),
                       "pwck(8) and grpck(8) find and repair such lines");
    }
  }
  return {};
}

template <class Items, class Pick>
auto find_by(const Items& items, Pick pick) -> decltype(items.data()) {
  const auto found = std::find_if(items.begin(), items.end(), pick);
  return found == items.end() ? nullptr : &*found;
}

}  // namespace

const UserEntry* Accounts::user(std::string_view name) const {
  return find_by(users, [&](const UserEntry& user) { return user.name == name; });
}

const GroupEntry* Accounts::group(std::string_view name) const {
  return find_by(groups, [&](const GroupEntry& group) { return group.name == name; });
}

const GroupEntry* Accounts::group(std::uint32_t gid) const {
  return find_by(groups, [&](const GroupEntry& group) { return group.gid == gid; });
}

Result<Accounts> read_accounts(const std::string& root) {
  JAIL_TRY(source, SourceRoot::open(root));
  return read_accounts(source);
}

Result<Accounts> read_accounts(const SourceRoot& root) {
  Accounts accounts;
  JAIL_CHECK(for_each_record(root, "/etc/passwd", 7, [&](const auto& fields) -> const char* {
    const auto uid = parse_id(fields[2]);
    const auto gid = parse_id(fields[3]);
    if (!uid || !gid) return "not a user or group number";
    accounts.users.push_back({std::string(fields[0]), *uid, *gid, std::string(fields[4]),
                              std::string(fields[5]), std::string(fields[6])});
    return nullptr;
  }));
  JAIL_CHECK(for_each_record(root, "/etc/group", 4, [&](const auto& fields) -> const char* {
    const auto gid = parse_id(fields[2]);
    if (!gid) return "not a group number";
    GroupEntry group{std::string(fields[0]), *gid, {}};
    for (const std::string_view member : split(fields[3], ',')) {
      if (!member.empty()) group.members.emplace_back(member);
    }
    accounts.groups.push_back(std::move(group));
    return nullptr;
  }));
  return accounts;
}

std::string passwd_text(std::vector<UserEntry> users) {
  std::stable_sort(users.begin(), users.end(), [](const auto& a, const auto& b) { return a.uid < b.uid; });
  std::string text;
  for (const UserEntry& user : users) {
    // '*' matches no password; the tree has no shadow file that an 'x' could point to.
    text += fmt::format("{}:*:{}:{}:{}:{}:{}\n", user.name, user.uid, user.gid, user.gecos, user.home,
                        user.shell);
  }
  return text;
}

std::string group_text(std::vector<GroupEntry> groups, const std::vector<UserEntry>& users) {
  std::stable_sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) { return a.gid < b.gid; });
  std::string text;
  for (const GroupEntry& group : groups) {
    std::string members;
    for (const std::string& member : group.members) {
      const bool in_tree =
          find_by(users, [&](const UserEntry& user) { return user.name == member; }) != nullptr;
      if (in_tree) members += (members.empty() ? "" : ",") + member;
    }
    text += fmt::format("{}:*:{}:{}\n", group.name, group.gid, members);
  }
  return text;
}

std::optional<std::uint32_t> user_id(const Accounts& accounts, std::string_view name) {
  if (const UserEntry* user = accounts.user(name)) return user->uid;
  if (name == "root") return 0;
  return std::nullopt;
}

std::optional<std::uint32_t> primary_group(const Accounts& accounts, std::string_view user) {
  if (const UserEntry* entry = accounts.user(user)) return entry->gid;
  if (user == "root") return 0;
  return std::nullopt;
}

std::optional<std::uint32_t> group_id(const Accounts& accounts, std::string_view name) {
  if (const GroupEntry* group = accounts.group(name)) return group->gid;
  if (name == "root") return 0;
  return std::nullopt;
}

Error no_such_user(std::string_view name, const std::vector<std::string>& packages) {
  std::string ways = fmt::format("useradd --system {}", name);
  if (!packages.empty()) ways = fmt::format("apt install {}, or: {}", fmt::join(packages, " "), ways);
  return Error{Exit::manifest, fmt::format("no such user: {}", quote(name)), "make it: " + ways};
}

Error no_such_group(std::string_view name, const std::vector<std::string>& packages) {
  std::string ways = fmt::format("groupadd --system {}", name);
  if (!packages.empty()) ways = fmt::format("apt install {}, or: {}", fmt::join(packages, " "), ways);
  return Error{Exit::manifest, fmt::format("no such group: {}", quote(name)), "make it: " + ways};
}

}  // namespace jail
