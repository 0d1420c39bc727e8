#include <map>

#include "jailer/closure/source_root.h"
#include "jailer/views/format.h"
#include "jailer/views/graph.h"
#include "jailer/views/inventory.h"
#include "supervisor/base/quote.h"

namespace jail::views {
namespace {

/// A quoted string of DOT: a quote or a backslash within must not end it or begin something.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : escape(text)) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

const char* shape(EntryType type) {
  switch (type) {
    case EntryType::directory:
      return "folder";
    case EntryType::file:
      return "box";
    case EntryType::symlink:
      return "cds";
    case EntryType::character_device:
    case EntryType::block_device:
      return "component";
  }
  return "box";
}

std::string node(const LockEntry& entry) {
  const std::string size = entry.type == EntryType::file ? ", " + size_of(entry) : "";
  return fmt::format("{} [label={}, shape={}, tooltip={}];\n", quoted(entry.path),
                     quoted(base_name(entry.path) + size), shape(entry.type), quoted(entry.path));
}

}  // namespace

std::string graph_dot(const Lock& lock) {
  const Inventory all = inventory_of(lock, true);
  const std::string manifest = quoted("manifest " + lock.name);
  std::string text = fmt::format("digraph {} {{\n", quoted(lock.name));
  text += " rankdir=LR;\n node [fontname=\"sans-serif\", fontsize=10];\n edge [color=\"#00000060\"];\n";
  text += fmt::format(" {} [shape=note];\n", manifest);
  for (std::size_t i = 0; i < all.packages.size(); ++i) {
    const Package& package = all.packages[i];
    const std::string label =
        package.name.empty() ? "without a package" : package.name + " " + package.version;
    text += fmt::format(" subgraph cluster_{} {{\n  label={};\n", i, quoted(label));
    for (const LockEntry* file : package.files) text += "  " + node(*file);
    text += " }\n";
  }
  std::map<std::string, bool> there;
  for (const LockEntry& entry : lock.entries) {
    there[entry.path] = true;
    if (!all.package_of.contains(&entry)) text += " " + node(entry);
  }
  for (const LockEntry& entry : lock.entries)
    for (const Reason& reason : entry.why) {
      if (reason.kind == "parent" || (!reason.by.empty() && !there.contains(reason.by))) continue;
      const std::string detail = reason.detail.empty() ? reason.kind : reason.kind + " " + reason.detail;
      text += fmt::format(" {} -> {} [tooltip={}];\n", reason.by.empty() ? manifest : quoted(reason.by),
                          quoted(entry.path), quoted(detail));
    }
  return text + "}\n";
}

}  // namespace jail::views
