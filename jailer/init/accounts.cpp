#include "jailer/init/accounts.h"

#include <algorithm>

namespace jail::init {
namespace {

void add(std::vector<std::string>& names, const std::string& name) {
  if (name.empty() || name == "root") return;
  if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
}

}  // namespace

Names accounts_of(const manifest::Manifest& manifest) {
  Names names;
  for (const std::string& user : manifest.tree.users) add(names.users, user);
  add(names.users, manifest.service.user);
  for (const manifest::File& file : manifest.tree.files) add(names.users, file.owner);
  for (const manifest::Volume& volume : manifest.volumes) {
    add(names.users, volume.owner);
    for (const manifest::VolumeDirectory& directory : volume.directories) add(names.users, directory.owner);
  }
  for (const manifest::Socket& socket : manifest.sockets) add(names.users, socket.owner);
  for (const std::string& group : manifest.tree.groups) add(names.groups, group);
  add(names.groups, manifest.service.group);
  for (const std::string& group : manifest.service.groups) add(names.groups, group);
  for (const manifest::File& file : manifest.tree.files) add(names.groups, file.group);
  for (const manifest::Volume& volume : manifest.volumes) {
    add(names.groups, volume.group);
    for (const manifest::VolumeDirectory& directory : volume.directories) add(names.groups, directory.group);
  }
  for (const manifest::Socket& socket : manifest.sockets) add(names.groups, socket.group);
  return names;
}

Names missing_from(const Accounts& accounts, const Names& names) {
  Names missing = names;
  std::erase_if(missing.users, [&](const std::string& name) { return accounts.user(name) != nullptr; });
  std::erase_if(missing.groups, [&](const std::string& name) {
    const auto& made = missing.users;  // with a group of that name
    return accounts.group(name) != nullptr || std::find(made.begin(), made.end(), name) != made.end();
  });
  return missing;
}

std::vector<std::string> useradd_words(const Accounts& accounts, const std::string& name) {
  std::vector<std::string> words = {"--system",     "--no-create-home", "--home-dir",
                                    "/nonexistent", "--shell",          "/usr/sbin/nologin"};
  if (accounts.group(name) == nullptr) {
    words.insert(words.end(), {"--user-group", name});
  } else {
    words.insert(words.end(), {"--gid", name, name});
  }
  return words;
}

std::vector<std::string> groupadd_words(const std::string& name) {
  return {"--system", name};
}

}  // namespace jail::init
