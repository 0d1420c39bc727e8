#include "jailer/manifest/reader.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <optional>

#include "jailer/digest/digest.h"
#include "jailer/manifest/binder.h"
#include "jailer/manifest/check.h"
#include "jailer/manifest/merge.h"
#include "jailer/manifest/schema.h"
#include "jailer/manifest/search.h"
#include "jailer/manifest/toml_file.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail::manifest {
namespace {

// Reads the files of one manifest and makes one of them.
class Loader {
 public:
  explicit Loader(const Located& located) : located_(located), keys_(manifest_keys()) {}

  Result<Manifest> load() {
    manifest_.name = located_.name;
    problems_.announce(located_.file.shown);
    for (const Place& place : located_.drop_ins) problems_.announce(place.shown);
    JAIL_TRY(base, read(located_.file));
    if (base && base->find("remove") != nullptr) {
      problems_.add(base->find("remove")->origin,
                    "[remove] has a meaning in drop-ins only: leave out here what it names");
      drop_remove(*base);
    }
    std::vector<Value> overlays;
    for (const Place& place : located_.drop_ins) {
      JAIL_TRY(overlay, read(place));
      if (overlay) overlays.push_back(std::move(*overlay));
    }
    const bool all_read = base && overlays.size() == located_.drop_ins.size();
    if (base) bind_alone(*base);
    for (const Value& overlay : overlays) bind_alone(overlay);
    if (all_read && problems_.list().size() < 100) bind_merged(std::move(*base), overlays);
    if (!problems_.empty()) return tl::unexpected(problems_.error(hint()));
    return std::move(manifest_);
  }

 private:
  // Nothing if it is no TOML: that is among the problems then.
  Result<std::optional<Value>> read(const Place& place) {
    auto text = read_file_at(AT_FDCWD, place.path, max_file_size);
    if (!text) return tl::unexpected(std::move(text).error());
    std::string digest = sha256_hex(*text);
    manifest_.sources.push_back({place.path, digest});
    std::optional<Value> value = parse_toml(*text, place.shown, problems_);
    if (value && !located_.instance.empty()) substitute(*value, located_.instance, problems_);
    return value;
  }

  static void drop_remove(Value& value) {
    std::erase_if(*value.table(), [](const Member& member) { return member.key == "remove"; });
  }

  // Each file by itself, so that a mistake that a stronger file hides is told, too.
  void bind_alone(Value value) {
    drop_remove(value);
    Binder binder(problems_, keys_, false);
    Manifest scratch;
    bind_manifest(binder, scratch, value);
  }

  void bind_merged(Value base, const std::vector<Value>& overlays) {
    for (const Value& overlay : overlays) merge(base, overlay, keys_, problems_);
    Binder binder(problems_, keys_, true);
    bind_manifest(binder, manifest_, base);
    manifest_.origins = binder.origins();
    fill_defaults(manifest_);
    check(manifest_, binder, located_.file.shown, problems_);
  }

  [[nodiscard]] std::string hint() const {
    if (located_.file.path == located_.file.shown && located_.drop_ins.empty()) return {};
    std::string text = "read from " + located_.file.path;
    for (const Place& place : located_.drop_ins) text += ", " + place.path;
    return text;
  }

  const Located& located_;
  Key keys_;
  Problems problems_;
  Manifest manifest_;
};

// A bundle or a syscall group: one file, no drop-ins.
template <class T>
Result<T> load_data(const Place& place, void (*bind)(Binder&, T&, const Value&)) {
  JAIL_TRY(text, read_file_at(AT_FDCWD, place.path, max_file_size));
  Problems problems;
  problems.announce(place.shown);
  T target;
  const std::optional<Value> value = parse_toml(text, place.shown, problems);
  const Key no_keys;
  Binder binder(problems, no_keys, true);
  if (value) bind(binder, target, *value);
  if (!problems.empty()) return tl::unexpected(problems.error("read from " + place.path));
  return target;
}

Result<void> add_group(const Instance& instance, const std::string& name, std::vector<std::string>& calls,
                       std::vector<std::string>& visited) {
  if (std::find(visited.begin(), visited.end(), name) != visited.end()) return {};
  visited.push_back(name);
  JAIL_TRY(place,
           locate_data(instance, "syscalls", name.starts_with('@') ? name.substr(1) : name, "syscall group"));
  JAIL_TRY(group, load_data<SyscallGroupFile>(place, bind_syscall_group));
  calls.insert(calls.end(), group.calls.begin(), group.calls.end());
  for (const std::string& include : group.include) {
    auto added = add_group(instance, include, calls, visited);
    if (added) continue;
    Error error = std::move(added).error();
    error.message = place.shown + ": include " + include + ": " + error.message;
    return tl::unexpected(std::move(error));
  }
  return {};
}

nlohmann::json to_object(const Manifest& manifest) {
  nlohmann::json out = show(manifest);  // sorts the keys
  out["name"] = manifest.name;
  out["sources"] = nlohmann::json::array();
  for (const Source& source : manifest.sources)
    out["sources"].push_back({{"path", source.path}, {"sha256", source.sha256}});
  out["origins"] = nlohmann::json::object();
  for (const auto& [path, origin] : manifest.origins)
    out["origins"][path] = fmt::format("{}:{}:{}", origin.file, origin.line, origin.column);
  return out;
}

std::string to_text(const nlohmann::json& object) {
  // A path on the command line may hold any bytes.
  return object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string Manifest::where(const std::string& path) const {
  const Origin* origin = nearest_origin(origins, path);
  return origin == nullptr ? std::string() : place(*origin);
}

Result<Manifest> load(const Instance& instance, const std::string& name_or_path) {
  JAIL_TRY(located, locate(instance, name_or_path));
  return Loader(located).load();
}

Result<Bundle> load_bundle(const Instance& instance, const std::string& name) {
  JAIL_TRY(place, locate_data(instance, "bundles", name, "bundle"));
  JAIL_TRY(bundle, load_data<Bundle>(place, bind_bundle));
  bundle.name = name;
  return std::move(bundle);
}

Result<std::vector<Bundle>> load_bundles(const Instance& instance) {
  std::vector<Bundle> bundles;
  for (const std::string& name : list_data(instance, "bundles")) {
    JAIL_TRY(bundle, load_bundle(instance, name));
    bundles.push_back(std::move(bundle));
  }
  return bundles;
}

Result<std::vector<std::string>> load_syscall_group(const Instance& instance, const std::string& name) {
  std::vector<std::string> calls;
  std::vector<std::string> visited;
  JAIL_CHECK(add_group(instance, name, calls, visited));
  std::sort(calls.begin(), calls.end());
  calls.erase(std::unique(calls.begin(), calls.end()), calls.end());
  return calls;
}

std::string to_json(const Manifest& manifest) {
  return to_text(to_object(manifest));
}

std::string to_json(const Manifest& manifest, const std::vector<FrozenProbe>& probes) {
  nlohmann::json out = to_object(manifest);
  out["probes"] = nlohmann::json::array();
  for (const FrozenProbe& probe : probes)
    out["probes"].push_back({{"bundle", probe.bundle}, {"name", probe.name}, {"run", probe.run}});
  return to_text(out);
}

}  // namespace jail::manifest
