#include "jailer/closure/plugin_syntax.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>

#include "jailer/closure/source_root.h"

namespace jail {
namespace {

using Files = std::vector<ConfigText>;
using Names = std::vector<PluginName>;

// ---- lines and words
// --------------------------------------------------------------------------------------------

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blank = " \t\r\n\v\f";
  const std::size_t first = text.find_first_not_of(blank);
  return first == std::string_view::npos ? std::string_view()
                                         : text.substr(first, text.find_last_not_of(blank) - first + 1);
}

/// Lines without what stands behind `comment`, blanks around them, and empty ones.
std::vector<std::string_view> lines_of(std::string_view text, char comment = '#') {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    line = trimmed(line.substr(0, line.find(comment)));
    if (!line.empty()) lines.push_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

/// Words between any of `separators`; of "[a b] c" the first is "[a b]" where `brackets`.
std::vector<std::string> words_of(std::string_view line, std::string_view separators = " \t",
                                  bool brackets = false) {
  std::vector<std::string> words;
  std::size_t at = 0;
  while ((at = line.find_first_not_of(separators, at)) != std::string_view::npos) {
    std::size_t end = line.find_first_of(separators, at);
    if (brackets && line[at] == '[') {
      end = line.find(']', at);
      if (end != std::string_view::npos) ++end;
    }
    end = std::min(end, line.size());
    words.emplace_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

/// "key = value" or "key: value".
struct Setting {
  std::string_view key;
  std::string_view value;
};
Setting setting_of(std::string_view line, char sign) {
  const std::size_t at = line.find(sign);
  if (at == std::string_view::npos) return {};
  return {trimmed(line.substr(0, at)), trimmed(line.substr(at + 1))};
}

std::string beside(const ConfigText& config, std::string_view name) {
  return name.starts_with('/') ? std::string(name) : parent_path(config.path) + "/" + std::string(name);
}

std::vector<std::string> no_includes(const ConfigText&) {
  return {};
}

/// Each file by itself.
template <void (*Read)(const ConfigText&, std::size_t, Names&)>
Names each(const Files& files) {
  Names names;
  for (std::size_t i = 0; i < files.size(); ++i) Read(files[i], i, names);
  return names;
}

// ---- nsswitch.conf(5): "passwd: files sss [NOTFOUND=return] ldap"
// ------------------------------------------------

void read_nsswitch(const ConfigText& config, std::size_t index, Names& names) {
  for (const std::string_view line : lines_of(config.text)) {
    for (const std::string& word : words_of(setting_of(line, ':').value, " \t", true))
      if (word.front() != '[') names.push_back({word, word, false, index});
  }
}

// ---- pam.d(5): "auth [success=1 default=ignore] pam_unix.so nullok"
// ----------------------------------------------

struct PamLine {
  std::string include;
  PluginName module;
};

PamLine read_pam_line(std::string_view line) {
  const auto words = words_of(line, " \t", true);
  if (words.size() == 2 && words[0] == "@include") return {words[1], {}};
  if (words.size() < 3) return {};
  if (words[1] == "include" || words[1] == "substack") return {words[2], {}};
  return {{}, {words[2], words[2], words[0].starts_with('-'), 0}};
}

std::vector<std::string> joined_lines(std::string_view text) {
  std::vector<std::string> lines;
  bool more = false;
  for (const std::string_view line : lines_of(text)) {
    if (!more) lines.emplace_back();
    more = line.ends_with('\\');
    lines.back() += std::string(line.substr(0, line.size() - (more ? 1 : 0)));
  }
  return lines;
}

std::vector<std::string> pam_includes(const ConfigText& config) {
  std::vector<std::string> files;
  for (const std::string& line : joined_lines(config.text))
    if (const PamLine read = read_pam_line(line); !read.include.empty())
      files.push_back(beside(config, read.include));
  return files;
}

void read_pam(const ConfigText& config, std::size_t index, Names& names) {
  for (const std::string& line : joined_lines(config.text)) {
    PamLine read = read_pam_line(line);
    if (read.module.word.empty()) continue;
    read.module.from = index;
    names.push_back(std::move(read.module));
  }
}

// ---- openssl.cnf: config(5). Sections lead to sections, across included files
// ------------------------------------

struct Section {
  std::vector<std::pair<std::string, std::string>> settings;
  std::size_t from = 0;
  [[nodiscard]] std::string get(std::string_view key) const {
    std::string value;  // the last one counts
    for (const auto& [name, text] : settings)
      if (name == key) value = text;
    return value;
  }
};

std::string unquoted(std::string_view text) {
  if (text.size() >= 2 && (text.front() == '"' || text.front() == '\'') && text.back() == text.front())
    text = text.substr(1, text.size() - 2);
  return std::string(text);
}

std::map<std::string, Section> read_sections(const Files& files) {
  std::map<std::string, Section> sections;
  std::string here = "default";
  for (std::size_t i = 0; i < files.size(); ++i) {
    for (const std::string_view line : lines_of(files[i].text)) {
      if (line.front() == '[') {
        here = std::string(trimmed(line.substr(1, line.find(']') - 1)));
      } else if (const Setting setting = setting_of(line, '='); !setting.key.empty()) {
        Section& section = sections[here];
        section.settings.emplace_back(setting.key, unquoted(setting.value));
        section.from = i;
      }
    }
    here = "default";
  }
  return sections;
}

std::vector<std::string> openssl_includes(const ConfigText& config) {
  std::vector<std::string> files;
  for (std::string_view line : lines_of(config.text)) {
    constexpr std::string_view include = ".include";
    if (!line.starts_with(include)) continue;
    line = trimmed(line.substr(include.size()));
    if (line.starts_with('=')) line = trimmed(line.substr(1));
    if (!line.empty()) files.push_back(beside(config, unquoted(line)));
  }
  return files;
}

bool is_off(const std::string& value) {
  constexpr std::array<std::string_view, 5> off = {"", "0", "no", "off", "false"};
  return std::find(off.begin(), off.end(), value) != off.end();
}

/// The entries of the section that openssl_conf's section names by `list`.
Names openssl_modules(const Files& files, const char* list, const char* path_key, bool must_be_active) {
  Names names;
  auto sections = read_sections(files);
  const Section& init = sections[sections["default"].get("openssl_conf")];
  const std::string listed = init.get(list);
  if (listed.empty()) return names;
  const Section modules = sections[listed];
  for (const auto& [word, section] : modules.settings) {
    const Section& own = sections[section];
    if (must_be_active && is_off(own.get("activate"))) continue;
    const std::string path = own.get(path_key);
    names.push_back({word, path.empty() ? word : path, false, modules.from});
  }
  return names;
}

Names openssl_providers(const Files& files) {
  return openssl_modules(files, "providers", "module", true);
}
Names openssl_engines(const Files& files) {
  return openssl_modules(files, "engines", "dynamic_path", false);
}

// ---- Postfix's dynamicmaps.cf: "sqlite postfix-sqlite.so dict_sqlite_open"
// ---------------------------------------

void read_dynamicmaps(const ConfigText& config, std::size_t index, Names& names) {
  for (const std::string_view line : lines_of(config.text))
    if (const auto words = words_of(line); words.size() >= 3)
      names.push_back({words[0], words[1], false, index});
}

// ---- p11-kit's *.module: "module: p11-kit-trust.so"
// --------------------------------------------------------------

void read_p11_kit(const ConfigText& config, std::size_t index, Names& names) {
  if (!config.path.ends_with(".module")) return;
  for (const std::string_view line : lines_of(config.text))
    if (const Setting setting = setting_of(line, ':'); setting.key == "module" && !setting.value.empty())
      names.push_back({std::string(setting.value), std::string(setting.value), false, index});
}

// ---- dovecot.conf: "mail_plugins = $mail_plugins quota"
// ----------------------------------------------------------

std::vector<std::string> dovecot_includes(const ConfigText& config) {
  std::vector<std::string> files;
  for (const std::string_view line : lines_of(config.text))
    if (const auto words = words_of(line);
        words.size() == 2 && (words[0] == "!include" || words[0] == "!include_try"))
      files.push_back(beside(config, words[1]));
  return files;
}

void read_dovecot(const ConfigText& config, std::size_t index, Names& names) {
  for (std::string_view line : lines_of(config.text)) {
    line = trimmed(line.substr(line.rfind('{') + 1));  // "protocol imap { mail_plugins = x"
    const Setting setting = setting_of(line, '=');
    if (setting.key != "mail_plugins") continue;
    for (const std::string& word : words_of(unquoted(setting.value), " \t,}"))
      if (word.front() != '$' && word.front() != '%') names.push_back({word, word, false, index});
  }
}

// ---- named.conf: plugin query "filter-aaaa.so" { ... }; dyndb "name" "x.so" {...}; dlz ... "dlopen /x.so"
// --------

/// Words, strings (behind a quote, so that no word is one) and punctuation; comments are none of them.
std::vector<std::string> named_tokens(std::string_view text) {
  std::vector<std::string> tokens;
  const auto skip = [&](std::string_view end) {
    const std::size_t at = text.find(end);
    text.remove_prefix(at == std::string_view::npos ? text.size() : at + end.size());
  };
  while (!text.empty()) {
    const char c = text.front();
    if (c == '#' || text.starts_with("//")) {
      skip("\n");
    } else if (text.starts_with("/*")) {
      skip("*/");
    } else if (c == '"') {
      const std::size_t end = std::min(text.find('"', 1), text.size());
      tokens.emplace_back(text.substr(0, end));
      text.remove_prefix(std::min(end + 1, text.size()));
    } else if (c == '{' || c == '}' || c == ';') {
      tokens.emplace_back(1, c);
      text.remove_prefix(1);
    } else if (std::isspace(static_cast<unsigned char>(c)) != 0) {
      text.remove_prefix(1);
    } else {
      const std::size_t end = std::min(text.find_first_of(" \t\r\n\v\f{};\"#"), text.size());
      tokens.emplace_back(text.substr(0, end));
      text.remove_prefix(end);
    }
  }
  return tokens;
}

std::string bare(const std::string& token) {
  return token.starts_with('"') ? token.substr(1) : token;
}

std::vector<std::string> named_includes(const ConfigText& config) {
  std::vector<std::string> files;
  const auto tokens = named_tokens(config.text);
  for (std::size_t i = 0; i + 1 < tokens.size(); ++i)
    if (tokens[i] == "include") files.push_back(beside(config, bare(tokens[i + 1])));
  return files;
}

void read_named(const ConfigText& config, std::size_t index, Names& names) {
  const auto tokens = named_tokens(config.text);
  for (std::size_t i = 0; i + 2 < tokens.size(); ++i) {
    std::string file;
    if (tokens[i] == "plugin" || tokens[i] == "dyndb") {
      file = bare(tokens[i + 2]);
    } else if (tokens[i] == "database" && bare(tokens[i + 1]).starts_with("dlopen ")) {
      const auto words = words_of(bare(tokens[i + 1]));
      if (words.size() >= 2) file = words[1];
    }
    if (!file.empty()) names.push_back({file, file, false, index});
  }
}

// ---- Cyrus SASL: "mech_list: PLAIN LOGIN", "auxprop_plugin: sasldb"
// ----------------------------------------------

/// Where a mechanism's plugin is not called as the mechanism is.
std::string sasl_plugin(std::string mechanism) {
  std::erase(mechanism, '-');
  std::transform(mechanism.begin(), mechanism.end(), mechanism.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (mechanism.starts_with("scram")) return "scram";
  if (mechanism.starts_with("gss")) return "gssapiv2";
  return mechanism;
}

void read_sasl(const ConfigText& config, std::size_t index, Names& names) {
  for (const std::string_view line : lines_of(config.text)) {
    Setting setting = setting_of(line, ':');
    constexpr std::string_view prefix = "sasl_";  // as Cyrus IMAP has them in its own configuration
    if (setting.key.starts_with(prefix)) setting.key.remove_prefix(prefix.size());
    if (setting.key != "mech_list" && setting.key != "auxprop_plugin") continue;
    for (const std::string& word : words_of(setting.value, " \t,"))
      names.push_back({word, sasl_plugin(word), false, index});
  }
}

constexpr std::array<PluginSyntax, 9> syntaxes = {{
    {"bind", named_includes, each<read_named>},
    {"dovecot", dovecot_includes, each<read_dovecot>},
    {"dynamicmaps", no_includes, each<read_dynamicmaps>},
    {"nsswitch", no_includes, each<read_nsswitch>},
    {"openssl-engines", openssl_includes, openssl_engines},
    {"openssl-providers", openssl_includes, openssl_providers},
    {"p11-kit", no_includes, each<read_p11_kit>},
    {"pam", pam_includes, each<read_pam>},
    {"sasl", no_includes, each<read_sasl>},
}};

}  // namespace

const PluginSyntax* plugin_syntax(std::string_view name) {
  const auto* found = std::find_if(syntaxes.begin(), syntaxes.end(),
                                   [&](const PluginSyntax& syntax) { return syntax.name == name; });
  return found == syntaxes.end() ? nullptr : found;
}

std::vector<std::string> plugin_syntaxes() {
  std::vector<std::string> names;
  for (const PluginSyntax& syntax : syntaxes) names.emplace_back(syntax.name);
  return names;
}

}  // namespace jail
