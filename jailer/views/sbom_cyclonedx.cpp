// CycloneDX 1.5: a component for each package, the files of it within, and where they are in the jail as
// evidence; files without a package as components of their own.
#include <map>
#include <nlohmann/json.hpp>

#include "jailer/tree/lock_text.h"
#include "jailer/views/inventory.h"
#include "jailer/views/sbom.h"

namespace jail::views {
namespace {

using nlohmann::json;
using tree::to_text;

std::string file_ref(const LockEntry& file) {
  return "file:" + to_text(file.path);
}

json file_component(const LockEntry& file) {
  return {{"type", "file"},
          {"bom-ref", file_ref(file)},
          {"name", to_text(file.path)},
          {"hashes", json::array({{{"alg", "SHA-256"}, {"content", file.sha256}}})}};
}

json package_component(const Package& package) {
  json files = json::array();
  json occurrences = json::array();
  for (const LockEntry* file : package.files) {
    files.push_back(file_component(*file));
    occurrences.push_back({{"location", to_text(file->path)}});
  }
  return {{"type", package.asked_for ? "application" : "library"},
          {"bom-ref", package.purl},
          {"name", package.name},
          {"version", package.version},
          {"purl", package.purl},
          {"components", std::move(files)},
          {"evidence", {{"occurrences", std::move(occurrences)}}}};
}

json components(const Inventory& all) {
  json list = json::array();
  for (const Package& package : all.packages) {
    if (!package.name.empty()) {
      list.push_back(package_component(package));
      continue;
    }
    for (const LockEntry* file : package.files) list.push_back(file_component(*file));
  }
  return list;
}

json dependencies(const Inventory& all, const std::string& jail_ref) {
  std::map<std::string, std::set<std::string>> depends;
  std::set<std::string>& jail = depends[jail_ref];
  for (const Package& package : all.packages) {
    for (const LockEntry* file : package.files) {
      (void)depends[file_ref(*file)];
      if (package.name.empty()) jail.insert(file_ref(*file));
    }
    if (package.name.empty()) continue;
    jail.insert(package.purl);
    std::set<std::string>& own = depends[package.purl];
    for (const std::size_t other : package.depends)
      if (!all.packages[other].name.empty()) own.insert(all.packages[other].purl);
  }
  for (const Need& need : all.needs) depends[file_ref(*need.from)].insert(file_ref(*need.to));
  json list = json::array();
  for (const auto& [ref, on] : depends) {
    json object = {{"ref", ref}};
    if (!on.empty()) object["dependsOn"] = on;
    list.push_back(std::move(object));
  }
  return list;
}

}  // namespace

Result<std::string> cyclonedx(const SbomInput& input) {
  JAIL_TRY(uuid, uuid_of(input.lock, "jail-cyclonedx-v1"));
  const Inventory all = inventory_of(input.lock, false);
  const std::string jail_ref = "jail:" + input.lock.name;
  const json tool = {{"type", "application"}, {"name", "jail"}, {"version", JAIL_VERSION}};
  const json jail = {
      {"type", "container"},
      {"bom-ref", jail_ref},
      {"name", input.lock.name},
      {"version", input.lock.tree_hash},
      {"properties",
       json::array({{{"name", "jail:generation"}, {"value", std::to_string(input.generation)}}})}};
  const json document = {{"$schema", "http://cyclonedx.org/schema/bom-1.5.schema.json"},
                         {"bomFormat", "CycloneDX"},
                         {"specVersion", "1.5"},
                         {"serialNumber", "urn:uuid:" + uuid},
                         {"version", 1},
                         {"metadata",
                          {{"timestamp", utc(input.created)},
                           {"tools", {{"components", json::array({tool})}}},
                           {"component", jail}}},
                         {"components", components(all)},
                         {"dependencies", dependencies(all, jail_ref)}};
  return document.dump(2) + "\n";
}

}  // namespace jail::views
