#include "jailer/manifest/render.h"

#include <algorithm>
#include <optional>

#include "jailer/manifest/fields.h"
#include "jailer/manifest/schema.h"

namespace jail::manifest {
namespace {

// A TOML basic string: JSON's escapes are a subset of TOML's.
std::string toml_string(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool bare(const std::string& key) {
  return !key.empty() && std::all_of(key.begin(), key.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

class Renderer {
 public:
  Renderer(const Manifest& manifest, bool defaults) : origins_(manifest.origins), defaults_(defaults) {}

  std::string render(const Json& shown, const Key& keys) {
    table(shown, keys, "", "", "");
    return std::move(out_);
  }

 private:
  // Plain keys first, then the tables: TOML needs it so. `path` is that of the origins, which names entries;
  // `title` that of a header, which does not.
  void table(const Json& values, const Key& keys, const std::string& path, const std::string& title,
             const std::string& header) {
    for (const auto& [name, value] : values.items()) {
      if (is_table(value)) continue;
      const std::string below = path.empty() ? name : path + "." + name;
      line(name, value, below, header);
    }
    for (const auto& [name, value] : values.items()) {
      if (!is_table(value)) continue;
      const std::string below = path.empty() ? name : path + "." + name;
      const std::string heading = title.empty() ? name : title + "." + name;
      const Key* key = keys.find(name);
      if (value.is_array()) {
        entries(value, *key, below, heading);
      } else {
        table(value, key == nullptr ? Key{} : *key, below, heading, "\n[" + heading + "]\n");
      }
    }
    pending_.clear();
  }

  static bool is_table(const Json& value) {
    return value.is_object() || (value.is_array() && !value.empty() && value.front().is_object());
  }

  void entries(const Json& items, const Key& key, const std::string& path, const std::string& title) {
    for (const Json& item : items) {
      std::string identity;
      for (const std::string_view word : key.identity)
        if (identity.empty() && item.contains(word) &&
            origins_.contains(path + "." + item[std::string(word)].get<std::string>()))
          identity = item[std::string(word)].get<std::string>();
      pending_.clear();
      table(item, key, path + "." + identity, title, "\n[[" + title + "]]\n");
    }
  }

  // The header of a table is written with its first line: a table of defaults alone has none.
  void start(const std::string& header) {
    if (header == pending_) return;
    out_ += header;
    pending_ = header;
  }

  [[nodiscard]] std::optional<std::string> place_of(const std::string& path) const {
    const auto found = origins_.find(path);
    if (found == origins_.end()) return std::nullopt;
    if (found->second.line == 0) return "default";
    return fmt::format("{}:{}", found->second.file, found->second.line);
  }

  void line(const std::string& name, const Json& value, const std::string& path, const std::string& header) {
    const std::optional<std::string> place = place_of(path);
    if (!place && !defaults_) return;
    start(header);
    const std::string key = bare(name) ? name : toml_string(name);
    if (value.is_array() && many_lines(value, path)) {
      list(key, value, path);
      return;
    }
    std::string text = value.is_string() ? toml_string(value.get<std::string>()) : value.dump();
    if (value.is_array()) {
      text = "[";
      for (const Json& item : value)
        text += (text.size() > 1 ? ", " : "") + toml_string(item.get<std::string>());
      text += "]";
    }
    comment(key + " = " + text, place.value_or("default"));
  }

  // A list from several files, or a long one, shows each word's place.
  [[nodiscard]] bool many_lines(const Json& value, const std::string& path) const {
    std::size_t length = 0;
    std::optional<std::string> file;
    for (std::size_t i = 0; i < value.size(); ++i) {
      length += value[i].get_ref<const std::string&>().size() + 4;
      const auto found = origins_.find(fmt::format("{}[{}]", path, i));
      if (found == origins_.end()) continue;
      if (file && *file != found->second.file) return true;
      file = found->second.file;
    }
    return length > 72;
  }

  void list(const std::string& key, const Json& value, const std::string& path) {
    out_ += key + " = [\n";
    for (std::size_t i = 0; i < value.size(); ++i)
      comment("  " + toml_string(value[i].get<std::string>()) + ",",
              place_of(fmt::format("{}[{}]", path, i)).value_or("default"));
    out_ += "]\n";
  }

  void comment(const std::string& text, const std::string& place) {
    constexpr std::size_t column = 48;
    out_ += text + std::string(std::max<std::size_t>(text.size() + 3, column) - text.size(), ' ') + "# " +
            place + "\n";
  }

  const std::map<std::string, Origin>& origins_;
  bool defaults_;
  std::string out_;
  std::string pending_;
};

}  // namespace

std::string to_text(const Manifest& manifest, bool defaults) {
  return Renderer(manifest, defaults).render(show(manifest), manifest_keys());
}

}  // namespace jail::manifest
