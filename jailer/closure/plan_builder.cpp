#include "jailer/closure/plan_builder.h"

#include <algorithm>
#include <deque>

#include "supervisor/base/quote.h"

namespace jail {
namespace {

constexpr int max_links = 40;  // as the kernel's own limit

std::deque<std::string> components(const std::string& path) {
  std::deque<std::string> parts;
  std::size_t start = 0;
  while (start < path.size()) {
    const std::size_t end = std::min(path.find('/', start), path.size());
    if (end > start) parts.push_back(path.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

const char* type_name(EntryType type) {
  switch (type) {
    case EntryType::directory:
      return "a directory";
    case EntryType::file:
      return "a file";
    case EntryType::symlink:
      return "a link";
    case EntryType::character_device:
    case EntryType::block_device:
      return "a device";
  }
  return "an entry";
}

bool same_thing(const Entry& a, const Entry& b) {
  const bool same_owner = a.uid == b.uid && a.gid == b.gid && a.mode == b.mode;
  switch (a.type) {
    case EntryType::directory:
      return same_owner;
    case EntryType::symlink:
      return a.target == b.target;
    case EntryType::file:
      return same_owner && a.source == b.source && a.content == b.content;
    case EntryType::character_device:
    case EntryType::block_device:
      return same_owner && a.device == b.device;
  }
  return false;
}

// One line a problem, but for what an error itself lays out in lines: those are indented.
std::string indented(std::string text) {
  for (std::size_t at = text.find('\n'); at != std::string::npos; at = text.find('\n', at + 1)) {
    if (at + 1 < text.size() && text[at + 1] != ' ') text.insert(at + 1, "  ");
  }
  return text;
}

}  // namespace

std::string in_words(const Reason& reason) {
  std::string words = reason.kind;
  if (!reason.detail.empty()) words += " " + reason.detail;
  if (!reason.by.empty()) words += " by " + reason.by;
  return words;
}

PlanBuilder::PlanBuilder(Plan& plan, const manifest::Manifest& manifest, const SourceRoot& source)
    : plan_(plan), manifest_(manifest) {
  for (const char* name : {"bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32"}) {
    const std::string path = std::string("/") + name;
    if (const auto target = source.link_target(path)) {
      if (normal_path("/" + *target) == "/usr" + path) merged_[path] = *target;
    }
  }
}

PlanBuilder::Followed PlanBuilder::follow(const std::string& path, bool last) {
  std::deque<std::string> rest = components(path);
  std::string out;
  int links = 0;
  while (!rest.empty()) {
    const std::string part = std::move(rest.front());
    rest.pop_front();
    if (part == ".") continue;
    if (part == "..") {
      if (out.empty()) return {"/", true};
      out = out.substr(0, out.rfind('/'));
      continue;
    }
    const std::string here = out + "/" + part;
    std::string target;
    if (!rest.empty() || last) {
      if (const Entry* entry = find(here); entry != nullptr && entry->type == EntryType::symlink) {
        target = entry->target;
      } else if (const auto merged = merged_.find(here); entry == nullptr && merged != merged_.end()) {
        target = merged->second;
      }
    }
    if (target.empty()) {
      out = here;
      continue;
    }
    if (++links > max_links) return {here, true};
    if (target.front() == '/') out.clear();
    const auto more = components(target);
    rest.insert(rest.begin(), more.begin(), more.end());
  }
  return {out.empty() ? "/" : out, false};
}

const Entry* PlanBuilder::find(const std::string& path) const {
  const auto found = plan_.entries.find(path);
  return found == plan_.entries.end() ? nullptr : &found->second;
}

std::vector<std::string> PlanBuilder::names_in(const std::string& path) const {
  std::vector<std::string> names;
  const std::string prefix = path == "/" ? path : path + "/";
  for (auto at = plan_.entries.upper_bound(prefix); at != plan_.entries.end(); ++at) {
    if (!at->first.starts_with(prefix)) break;
    if (parent_path(at->first) == path) names.push_back(base_name(at->first));
  }
  return names;
}

std::string PlanBuilder::put(Entry entry, const Place& place) {
  // The links of the source's top level come into the tree with the first path that uses them.
  for (const auto& [link, target] : merged_) {
    if (entry.path != link && is_at_or_below(entry.path, link) && find(link) == nullptr)
      put_link(link, target, {"link", follow(entry.path, false).path, {}}, place);
  }
  const auto followed = follow(entry.path, entry.type == EntryType::directory);
  if (followed.escapes) {
    problem(place, fmt::format("{}: the links on this path lead out of the tree", quote(entry.path)));
    return entry.path;
  }
  entry.path = followed.path;
  std::string path = entry.path;
  if (const auto there = plan_.entries.find(path); there != plan_.entries.end()) {
    join(there->second, std::move(entry), place);
  } else {
    plan_.entries.emplace(path, std::move(entry));
    put_parents(path, place);
  }
  return path;
}

void PlanBuilder::put_parents(const std::string& path, const Place& place) {
  for (std::string below = path; below != "/";) {
    std::string parent = parent_path(below);
    const auto there = plan_.entries.find(parent);
    if (there != plan_.entries.end()) {
      if (there->second.type != EntryType::directory) {
        problem(place, fmt::format("{}: {} is {} ({})", quote(path), quote(parent),
                                   type_name(there->second.type), in_words(there->second.why.front())));
      }
      return;
    }
    Entry entry;
    entry.path = parent;
    entry.type = EntryType::directory;
    entry.mode = 0755;
    entry.why = {{"parent", below, {}}};
    plan_.entries.emplace(parent, std::move(entry));
    weak_.insert(parent);
    below = std::move(parent);
  }
}

void PlanBuilder::add_reasons(Entry& there, std::vector<Reason>&& reasons) {
  for (Reason& reason : reasons) {
    const bool one_is_enough = reason.kind == "parent" || reason.kind == "link";
    const bool known = std::any_of(there.why.begin(), there.why.end(), [&](const Reason& old) {
      return old == reason || (one_is_enough && old.kind == reason.kind);
    });
    if (!known) there.why.push_back(std::move(reason));
  }
}

void PlanBuilder::join(Entry& there, Entry&& entry, const Place& place) {
  const bool strong = weak_.count(there.path) == 0;
  const bool secret = there.secret || entry.secret;
  std::set<std::string> xattrs = there.xattrs;
  xattrs.insert(entry.xattrs.begin(), entry.xattrs.end());
  if (there.type == entry.type && (!strong || same_thing(there, entry))) {
    if (!strong && !same_thing(there, entry)) {
      // What only stood for something else gives way, and keeps its reasons behind the new ones.
      std::vector<Reason> old = std::move(there.why);
      there = std::move(entry);
      add_reasons(there, std::move(old));
    } else {
      add_reasons(there, std::move(entry.why));
    }
    weak_.erase(there.path);
    there.secret = secret;
    there.xattrs = std::move(xattrs);
    return;
  }
  const std::string both =
      there.type == entry.type
          ? fmt::format("{} twice, with different content, mode or owner", type_name(entry.type))
          : fmt::format("{} and {}", type_name(there.type), type_name(entry.type));
  problem(place, fmt::format("{} would be {} ({}; {})", quote(there.path), both, in_words(there.why.front()),
                             in_words(entry.why.front())));
}

std::string PlanBuilder::put_directory(const std::string& path, Reason why, const Place& place) {
  Entry entry;
  entry.path = path;
  entry.type = EntryType::directory;
  entry.mode = 0755;
  entry.why.push_back(std::move(why));
  return put(std::move(entry), place);
}

std::string PlanBuilder::put_link(const std::string& path, const std::string& target, Reason why,
                                  const Place& place) {
  Entry entry;
  entry.path = path;
  entry.type = EntryType::symlink;
  entry.mode = 0777;
  entry.target = target;
  entry.why.push_back(std::move(why));
  return put(std::move(entry), place);
}

std::string PlanBuilder::put_text(const std::string& path, std::string content, Reason why,
                                  const Place& place) {
  Entry entry;
  entry.path = path;
  entry.mode = 0644;
  entry.content = std::move(content);
  entry.why.push_back(std::move(why));
  return put(std::move(entry), place);
}

void PlanBuilder::put_mount_point(const std::string& path, bool is_directory, Reason why,
                                  const Place& place) {
  const auto followed = follow(path);
  const EntryType type = is_directory ? EntryType::directory : EntryType::file;
  if (followed.path != path) {
    problem(place,
            fmt::format("{} runs over a link of the tree; write {}", quote(path), quote(followed.path)));
    return;
  }
  if (const auto there = plan_.entries.find(path);
      there != plan_.entries.end() && there->second.type == type) {
    there->second.why.push_back(std::move(why));
    return;
  }
  if (is_directory) {
    put_directory(path, std::move(why), place);
  } else {
    put_text(path, "", std::move(why), place);
  }
  weak_.insert(path);
}

void PlanBuilder::problem(const Place& place, const std::string& text) {
  if (lenient_) return warn(place, text);
  std::string line = manifest_.where(place) + indented(text);
  if (std::find(problems_.begin(), problems_.end(), line) == problems_.end())
    problems_.push_back(std::move(line));
}

void PlanBuilder::problem(const Place& place, const Error& error) {
  problem(place, error.hint.empty() ? error.message : fmt::format("{} ({})", error.message, error.hint));
}

void PlanBuilder::warn(const Place& place, const std::string& text) {
  std::string line = manifest_.where(place) + indented(text);
  auto& all = plan_.warnings;
  if (std::find(all.begin(), all.end(), line) == all.end()) all.push_back(std::move(line));
}

Result<void> PlanBuilder::finish() const {
  if (problems_.empty()) return {};
  return fail(Exit::manifest, "{}", fmt::join(problems_, "\n"));
}

}  // namespace jail
