#include "jailer/init/record.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "jailer/tree/remove_tree.h"
#include "jailer/tree/root_dir.h"
#include "jailer/tree/state.h"
#include "jailer/tree/write_error.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail::init {
namespace {

constexpr std::size_t max_record = 1UL << 20U;
constexpr std::string_view suffix = ".json";

std::string file_of(const std::string& name) {
  return name + std::string(suffix);
}

bool plausible(const Made& made) {
  if (made.kind == "user" || made.kind == "group") return !made.what.empty();
  const bool known = made.kind == "directory" || made.kind == "file" || made.kind == "unit";
  return known && tree::is_clean(made.what) && made.what != "/" &&
         (made.kind == "file" ? made.sha256.size() == 64 : made.sha256.empty());
}

std::optional<Record> parse(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object() || json.value("version", nlohmann::json()) != 1) return std::nullopt;
  const auto made = json.find("made");
  if (made == json.end() || !made->is_array()) return std::nullopt;
  Record record;
  for (const auto& entry : *made) {
    if (!entry.is_object()) return std::nullopt;
    Made one;
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) return std::nullopt;
      if (key == "kind") one.kind = value;
      if (key == "what") one.what = value;
      if (key == "sha256") one.sha256 = value;
    }
    if (!plausible(one)) return std::nullopt;
    record.made.push_back(std::move(one));
  }
  return record;
}

}  // namespace

const Made* Record::find(std::string_view kind, std::string_view what) const {
  const auto found = std::find_if(made.begin(), made.end(),
                                  [&](const Made& each) { return each.kind == kind && each.what == what; });
  return found == made.end() ? nullptr : &*found;
}

Result<Records> Records::open(const Instance& instance, bool make) {
  const std::string path = instance.state + "/init";
  auto dir = tree::open_state_part(instance, "init", make);
  if (!dir && dir.error().exit == Exit::no_input) return Records(path, UniqueFd());
  if (!dir) return tl::unexpected(std::move(dir).error());
  while (::flock(dir->get(), LOCK_EX) != 0)
    if (errno != EINTR) return fail_errno(Exit::io, errno, "{}: cannot lock", quote(path));
  return Records(path, std::move(*dir));
}

Result<std::optional<Record>> Records::load(const std::string& name) const {
  if (!dir_) return std::nullopt;
  auto text = read_file_at(dir_.get(), file_of(name), max_record, false);
  if (!text && text.error().exit == Exit::no_input) return std::nullopt;
  if (!text) return tl::unexpected(std::move(text).error());
  auto record = parse(*text);
  if (!record)
    return with_hint(
        fail(Exit::config, "{}/{}: not a record of what init has made", quote(path_), file_of(name)),
        "move it away; what init made is then yours to remove");
  return record;
}

Result<void> Records::save(const std::string& name, const Record& record) const {
  nlohmann::ordered_json json = {{"version", 1}, {"made", nlohmann::ordered_json::array()}};
  for (const Made& made : record.made) {
    nlohmann::ordered_json entry = {{"kind", made.kind}, {"what", made.what}};
    if (!made.sha256.empty()) entry["sha256"] = made.sha256;
    json["made"].push_back(std::move(entry));
  }
  return replace_file_at(dir_.get(), file_of(name), json.dump(2) + "\n", 0600, true);
}

Result<void> Records::remove(const std::string& name) const {
  if (!dir_ || ::unlinkat(dir_.get(), file_of(name).c_str(), 0) == 0 || errno == ENOENT) return {};
  return tree::fail_write(errno, "{}/{}: cannot remove", quote(path_), file_of(name));
}

Result<std::string> Records::shared_with(const std::string& name, const std::string& kind,
                                         const std::string& what) const {
  if (!dir_) return std::string();
  JAIL_TRY(files, tree::names_in(dir_.get(), path_));
  for (const std::string& file : files) {
    if (!file.ends_with(suffix)) continue;
    const std::string other = file.substr(0, file.size() - suffix.size());
    if (other == name || !valid_name(other)) continue;
    JAIL_TRY(record, load(other));
    if (record && record->find(kind, what) != nullptr) return other;
  }
  return std::string();
}

}  // namespace jail::init
