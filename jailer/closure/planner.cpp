#include "jailer/closure/planner.h"

#include <algorithm>

#include "jailer/closure/work.h"
#include "jailer/manifest/reader.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

void plan_programs(Work& work) {
  const manifest::Tree& tree = work.manifest.tree;
  for (std::size_t i = 0; i < tree.binaries.size(); ++i) {
    const Place place = place_of("tree.binaries", i);
    plan_program(work, tree.binaries[i], {"binary", {}, place}, place);
  }
  // The command is always in its tree, unless `files` brings it.
  if (!work.manifest.service.command.empty()) {
    const std::string& command = work.manifest.service.command.front();
    const auto& files = tree.files;
    const bool copied = std::any_of(files.begin(), files.end(), [&](const manifest::File& file) {
      return is_at_or_below(command, file.to);
    });
    const bool listed = std::find(tree.binaries.begin(), tree.binaries.end(), command) != tree.binaries.end();
    if (!copied && !listed)
      plan_program(work, command, {"binary", {}, "service.command[0]"}, "service.command[0]");
  }
  for (std::size_t i = 0; i < tree.libraries.size(); ++i) {
    const Place place = place_of("tree.libraries", i);
    plan_library(work, tree.libraries[i], {"library", {}, place}, place);
  }
}

void plan_copies(Work& work) {
  const manifest::Tree& tree = work.manifest.tree;
  for (std::size_t i = 0; i < tree.files.size(); ++i) {
    const Place place = "tree.files." + tree.files[i].to;
    plan_file(work, tree.files[i], {"file", {}, place}, place);
  }
  for (std::size_t i = 0; i < tree.directories.size(); ++i) {
    const Place place = place_of("tree.directories", i);
    work.out.put_directory(tree.directories[i], {"file", {}, place}, place);
  }
  for (std::size_t i = 0; i < tree.devices.size(); ++i) {
    const Place place = place_of("tree.devices", i);
    plan_device(work, tree.devices[i], {"device", {}, place}, place);
  }
}

struct Ids {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
};

/// The numbers of an owner and a group; no group is the owner's primary one.
std::optional<Ids> ids_of(Work& work, const std::string& owner, const std::string& group,
                          const Place& place) {
  const auto uid = user_id(work.accounts, owner);
  const auto gid = group.empty() ? primary_group(work.accounts, owner) : group_id(work.accounts, group);
  if (!uid) {
    work.out.problem(place, no_such_user(owner, work.manifest.packages));
  } else if (!gid) {
    work.out.problem(place, no_such_group(group, work.manifest.packages));
  } else {
    return Ids{*uid, *gid};
  }
  return std::nullopt;
}

/// The launcher mounts a directory with nothing but the socket over the one that a log socket is in.
std::string directory_of(const std::string& log_socket) {
  return log_socket.substr(0, log_socket.rfind('/'));
}

/// In a volume that directory must be there, and so must those above it.
void add_log_directories(const manifest::Manifest& manifest, PlannedVolume& volume) {
  constexpr std::uint32_t mode = 0755;
  for (const std::string& socket : manifest.service.log_sockets) {
    const std::string directory = directory_of(socket) + "/";
    if (!directory.starts_with(volume.path + "/")) continue;
    const std::string inside = directory.substr(volume.path.size() + 1);
    for (std::size_t slash = inside.find('/'); slash != std::string::npos;
         slash = inside.find('/', slash + 1)) {
      const std::string part = inside.substr(0, slash);
      const bool there = std::any_of(volume.directories.begin(), volume.directories.end(),
                                     [&](const PlannedDirectory& other) { return other.path == part; });
      if (!there) volume.directories.push_back({part, 0, 0, mode});
    }
  }
}

void plan_volume(Work& work, Plan& plan, const manifest::Volume& volume, const Place& place) {
  const auto ids = ids_of(work, volume.owner, volume.group, place);
  if (!ids) return;
  PlannedVolume& planned = plan.volumes.emplace_back(
      PlannedVolume{volume.name, volume.path, ids->uid, ids->gid, volume.mode, volume.files});
  for (const manifest::VolumeDirectory& directory : volume.directories) {
    const Place below = place + ".directories." + directory.path;
    const std::string& owner = directory.owner.empty() ? volume.owner : directory.owner;
    const std::string& group =
        directory.owner.empty() && directory.group.empty() ? volume.group : directory.group;
    if (const auto its = ids_of(work, owner, group, below))
      planned.directories.push_back({directory.path, its->uid, its->gid, directory.mode});
  }
  add_log_directories(work.manifest, planned);
  std::sort(planned.directories.begin(), planned.directories.end(),
            [](const auto& a, const auto& b) { return a.path < b.path; });  // parents come first
}

void plan_volumes(Work& work, Plan& plan) {
  const auto& volumes = work.manifest.volumes;
  for (const manifest::Volume& volume : volumes) plan_volume(work, plan, volume, "volume." + volume.name);
  std::sort(plan.volumes.begin(), plan.volumes.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
}

}  // namespace

void plan_accounts(Work& work) {
  const manifest::Tree& tree = work.manifest.tree;
  std::vector<UserEntry> users;
  std::map<std::string, GroupEntry> groups;
  const auto add_group = [&](const GroupEntry& group) { groups.emplace(group.name, group); };
  for (std::size_t i = 0; i < tree.users.size(); ++i) {
    const UserEntry* user = work.accounts.user(tree.users[i]);
    if (user == nullptr) {
      work.out.problem(place_of("tree.users", i), no_such_user(tree.users[i], work.manifest.packages));
      continue;
    }
    users.push_back(*user);
    if (const GroupEntry* group = work.accounts.group(user->gid)) add_group(*group);
  }
  for (std::size_t i = 0; i < tree.groups.size(); ++i) {
    if (const GroupEntry* group = work.accounts.group(tree.groups[i])) {
      add_group(*group);
    } else {
      work.out.problem(place_of("tree.groups", i), no_such_group(tree.groups[i], work.manifest.packages));
    }
  }
  if (users.empty() && groups.empty()) return;
  std::vector<GroupEntry> all;
  for (auto& [name, group] : groups) all.push_back(group);
  work.out.put_text("/etc/passwd", passwd_text(users), {"user", {}, "tree.users"}, "tree.users");
  work.out.put_text("/etc/group", group_text(all, users), {"user", {}, "tree.users"}, "tree.users");
}

void plan_mounts(Work& work) {
  // What the launcher always mounts: private /dev, /proc, /tmp and /run, and the notify socket in
  // /run/systemd.
  for (const char* path : {"/dev", "/proc", "/run", "/run/systemd", "/tmp"}) {
    work.out.put_mount_point(path, true, {"mount", {}, "private"}, "sandbox");
    work.mounts.insert(path);
  }
  const auto& configs = work.manifest.configs;
  for (std::size_t i = 0; i < configs.size(); ++i) {
    const Place place = "config." + configs[i].to;
    const auto status = work.source.status(configs[i].from);
    if (!status && !configs[i].optional) {
      work.out.problem(place, fmt::format("config {}", status.error().message));
      continue;
    }
    const bool file = status && !S_ISDIR(status->st_mode);
    work.out.put_mount_point(configs[i].to, !file, {"mount", {}, place}, place);
    work.mounts.insert(configs[i].to);
  }
  const auto& volumes = work.manifest.volumes;
  for (std::size_t i = 0; i < volumes.size(); ++i) {
    const Place place = "volume." + volumes[i].name;
    work.out.put_mount_point(volumes[i].path, true, {"mount", {}, "volume " + volumes[i].name}, place);
    work.mounts.insert(volumes[i].path);
  }
  const auto& sockets = work.manifest.service.log_sockets;
  for (std::size_t i = 0; i < sockets.size(); ++i) {
    const std::string directory = directory_of(sockets[i]);
    const Place place = fmt::format("service.log_sockets[{}]", i);
    work.out.put_mount_point(directory, true, {"mount", {}, "log socket"}, place);
    work.mounts.insert(directory);
  }
}

namespace {

constexpr const char* remembered_closures = "closures";

/// What some bundle wants to hear of.
elf::Symbols watched(const Result<std::vector<manifest::Bundle>>& bundles) {
  elf::Symbols symbols;
  if (!bundles) return symbols;
  for (const manifest::Bundle& bundle : *bundles)
    for (const auto* list : {&bundle.imports, &bundle.offers}) symbols.insert(list->begin(), list->end());
  return symbols;
}

}  // namespace

Result<Plan> make_plan(const Instance& instance, const manifest::Manifest& manifest, const std::string& root,
                       Looks* looks, Memo* memo) {
  JAIL_TRY(source, SourceRoot::open(root, looks));
  Looks resolvers;
  JAIL_TRY(resolver, elf::Resolver::open(root, looks != nullptr ? &resolvers : nullptr));
  JAIL_TRY(accounts, read_accounts(source));
  Plan plan;
  plan.name = manifest.name;
  plan.root = root;
  plan.distribution = source.distribution();
  PlanBuilder builder(plan, manifest, source);
  const auto bundles = manifest::load_bundles(instance);
  resolver.watch(watched(bundles));
  if (memo != nullptr) {
    const std::string* closures = memo->find(remembered_closures);
    resolver.recall(closures != nullptr ? *closures : std::string_view());
  }
  Work work{instance, manifest, source, resolver, accounts, builder, bundles};
  builder.put_directory("/", {"parent", {}, "the root"}, {});
  plan_programs(work);
  plan_copies(work);
  plan_bundles(work);
  check_features(work);
  builder.ignore(manifest.dlopen.ignore);
  if (const auto policy = resolver.policy(work.first_program); policy && !work.first_program.empty())
    plan.loader_dirs = policy->system_dirs;
  plan_accounts(work);
  plan_volumes(work, plan);
  plan_mounts(work);
  plan_loader_cache(work);
  check_links(work);
  JAIL_CHECK(builder.finish());
  if (looks != nullptr) looks->add(resolvers);
  if (memo != nullptr) memo->put(remembered_closures, resolver.memory());
  return plan;
}

}  // namespace jail
