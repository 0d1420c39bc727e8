#include <sys/sysmacros.h>

#include <nlohmann/json.hpp>

#include "jailer/closure/planner.h"

namespace jail {
namespace {

using nlohmann::json;

const char* type_name(EntryType type) {
  switch (type) {
    case EntryType::directory:
      return "directory";
    case EntryType::file:
      return "file";
    case EntryType::symlink:
      return "symlink";
    case EntryType::character_device:
      return "character_device";
    case EntryType::block_device:
      return "block_device";
  }
  return "unknown";
}

json reasons(const std::vector<Reason>& why) {
  json list = json::array();
  for (const Reason& reason : why)
    list.push_back({{"kind", reason.kind}, {"by", reason.by}, {"detail", reason.detail}});
  return list;
}

json to_object(const Entry& entry) {
  json object = {{"path", entry.path},
                 {"type", type_name(entry.type)},
                 {"mode", fmt::format("{:04o}", entry.mode)},
                 {"uid", entry.uid},
                 {"gid", entry.gid},
                 {"why", reasons(entry.why)}};
  if (!entry.source.empty()) object["source"] = entry.source;
  if (entry.content) object["size"] = entry.content->size();
  if (!entry.target.empty()) object["target"] = entry.target;
  if (entry.secret) object["secret"] = true;
  if (!entry.xattrs.empty()) object["xattrs"] = entry.xattrs;
  if (entry.type == EntryType::character_device || entry.type == EntryType::block_device) {
    object["major"] = major(entry.device);
    object["minor"] = minor(entry.device);
  }
  return object;
}

}  // namespace

std::string to_json(const Plan& plan) {
  json entries = json::array();
  for (const auto& [path, entry] : plan.entries) entries.push_back(to_object(entry));
  json volumes = json::array();
  for (const PlannedVolume& volume : plan.volumes) {
    json directories = json::array();
    for (const PlannedDirectory& directory : volume.directories) {
      directories.push_back({{"path", directory.path},
                             {"uid", directory.uid},
                             {"gid", directory.gid},
                             {"mode", fmt::format("{:04o}", directory.mode)}});
    }
    volumes.push_back({{"name", volume.name},
                       {"path", volume.path},
                       {"uid", volume.uid},
                       {"gid", volume.gid},
                       {"mode", fmt::format("{:04o}", volume.mode)},
                       {"files", volume.files},
                       {"directories", directories}});
  }
  json probes = json::array();
  for (const PlannedProbe& probe : plan.probes)
    probes.push_back({{"bundle", probe.bundle}, {"name", probe.name}, {"run", probe.run}});
  const json object = {{"version", 1},        {"name", plan.name},        {"root", plan.root},
                       {"entries", entries},  {"volumes", volumes},       {"probes", probes},
                       {"notes", plan.notes}, {"warnings", plan.warnings}};
  // File names need not be UTF-8: such bytes are shown as U+FFFD.
  return object.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace jail
