#include "jailer/manifest/check.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "jailer/manifest/suggest.h"
#include "supervisor/base/quote.h"
#include "supervisor/spec/socket_address.h"

namespace jail::manifest {
namespace {

bool holds(const std::vector<std::string>& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

// Whether `path` is `directory` or below it.
bool at_or_below(std::string_view path, std::string_view directory) {
  return path.starts_with(directory) && (path.size() == directory.size() || path[directory.size()] == '/');
}

// A path of the jail that an entry of the manifest claims.
struct Claim {
  std::string path;
  std::string where;  ///< of the manifest
  std::string what;   ///< "the volume 'x'"
  bool mount = false;
};

class Checker {
 public:
  Checker(const Manifest& manifest, const Binder& binder, const std::string& file, Problems& problems)
      : m_(manifest), binder_(binder), file_(file), problems_(problems) {}

  void run() {
    accounts();
    commands();
    readiness();
    sockets();
    times();
    tree_bundles();
    tree_files();
    for (const Volume& volume : m_.volumes) volume_directories(volume);
    collect_claims();
    mount_points();
    clashes();
  }

 private:
  void problem(const std::string& path, const std::string& text) {
    const Origin* origin = nearest_origin(m_.origins, path);
    problems_.add(origin != nullptr ? *origin : Origin{file_, 1, 1}, path + ": " + text);
  }

  // ---- accounts
  // ----------------------------------------------------------------------------------------------

  void account(const std::string& path, const std::string& name) {
    if (name.empty() || name == "root" || binder_.broken(path) || binder_.broken("tree.users")) return;
    if (holds(m_.tree.users, name)) return;
    problem(path, fmt::format("the user {} is not in the tree; add it to [tree] users{}", quote(name),
                              did_you_mean(name, m_.tree.users)));
  }

  void accounts() {
    account("service.user", m_.service.user);
    for (const Volume& volume : m_.volumes) {
      account("volume." + volume.name + ".owner", volume.owner);
      for (const VolumeDirectory& directory : volume.directories)
        account("volume." + volume.name + ".directories." + directory.path + ".owner", directory.owner);
    }
    for (const File& file : m_.tree.files) account("tree.files." + file.to + ".owner", file.owner);
  }

  void program_of_the_tree(const std::vector<std::string>& command, const std::string& key) {
    if (command.empty() || binder_.broken(key)) return;
    const std::string& program = command.front();
    if (!program.starts_with('/')) {
      problem(key + "[0]", quote(program, 128) + " is relative; expected the absolute path of a binary");
    } else if (!holds(m_.tree.binaries, program) && !binder_.broken("tree.binaries")) {
      problem(key + "[0]", fmt::format("{} is not in the tree; add it to [tree] binaries{}",
                                       quote(program, 128), did_you_mean(program, m_.tree.binaries)));
    }
  }

  // ---- commands
  // ----------------------------------------------------------------------------------------------

  void commands() {
    program_of_the_tree(m_.service.command, "service.command");
    program_of_the_tree(m_.service.check_config, "service.check_config");
    if (m_.check && !m_.check->command.empty() && m_.check->command.front().empty())
      problem("check.command[0]", "the program's name is empty");
  }

  // ---- readiness
  // ---------------------------------------------------------------------------------------------

  void readiness() {
    const auto& ready = m_.service.ready;
    if (holds(ready, "check") && !m_.check) problem("service.ready", "\"check\" needs a [check] command");
    if (holds(ready, "listen") && m_.sandbox.listen.empty() && m_.sockets.empty() &&
        !binder_.broken("sandbox.ports"))
      problem("service.ready",
              "\"listen\" needs [sandbox] ports.listen or a [[socket]]: what should it wait for?");
    if (holds(ready, "started") && ready.size() > 1)
      problem("service.ready", "\"started\" waits for nothing: it cannot stand beside other words");
  }

  // ---- sockets
  // -----------------------------------------------------------------------------------------------

  void sockets() {
    std::vector<std::pair<SocketAddress, std::string>> taken;  // and whose they are
    for (const Socket& socket : m_.sockets) {
      const std::string path = "socket." + socket.name;
      if (binder_.broken(path)) continue;
      if (socket.listen.empty()) problem(path + ".listen", "an empty list listens nowhere");
      bool local = false;
      for (const std::string& text : socket.listen) {
        const auto address = parse_socket_address(text);
        if (!address) continue;
        local = local || address->local();
        for (const auto& [other, whose] : taken)
          if (overlap(other, *address))
            problem(path + ".listen", fmt::format("{} and {} of {} cannot both be bound", quote(text, 128),
                                                  quote(to_text(other), 128), quote(whose)));
        taken.emplace_back(*address, socket.name);
      }
      for (const char* key : {".owner", ".group", ".mode"})
        if (!local && m_.origins.contains(path + key))
          problem(path + key, "is for unix sockets: whoever reaches an address may connect to it");
    }
    constexpr std::size_t most = 64;
    if (taken.size() > most)
      problem("socket", fmt::format("{} addresses are too many; {} can be passed", taken.size(), most));
  }

  void times() {
    const Restart& restart = m_.service.restart;
    if (restart.max_delay < restart.delay && !binder_.broken("service.restart"))
      problem("service.restart.max_delay", "is shorter than the first delay");
    if (m_.service.ready_timeout.count() == 0)
      problem("service.ready_timeout", "must be longer than nothing");
    if (m_.check && m_.check->timeout.count() == 0) problem("check.timeout", "must be longer than nothing");
  }

  // ---- paths of the jail
  // -------------------------------------------------------------------------------------

  void tree_bundles() {
    for (std::size_t i = 0; i < m_.tree.exclude.size(); ++i)
      if (holds(m_.tree.include, m_.tree.exclude[i]))
        problem(fmt::format("tree.exclude[{}]", i),
                fmt::format("the bundle {} is included, too", quote(m_.tree.exclude[i])));
  }

  void tree_files() {
    for (const File& file : m_.tree.files) {
      const std::string path = "tree.files." + file.to;
      if (file.from && file.text) problem(path, "has both 'from' and 'text'; a file has one source");
      if (!file.from && !file.text && !binder_.broken(path))
        problem(path, "needs 'from' (a source) or 'text' (the content)");
      if (file.from && (at_or_below(*file.from, "/proc") || at_or_below(*file.from, "/sys") ||
                        at_or_below(*file.from, "/dev")))
        problem(path + ".from", quote(*file.from, 128) + " is no file that can be copied");
      if (file.text && !file.xattrs.empty())
        problem(path + ".xattrs", "are copied from a source, and 'text' has none");
      if (file.secret && file.text)
        problem(path,
                "is secret, but whoever reads the manifest reads it: put it into a file, and use 'from'");
      if (file.secret && (file.mode.value_or(0) & 07U) != 0)
        problem(path + ".mode", "lets others than owner and group at a secret");
      if (file.to == "/") problem(path + ".to", "cannot be the root itself");
    }
  }

  // A parent that nobody described would get an owner and mode that nobody chose.
  void volume_directories(const Volume& volume) {
    std::vector<std::string> paths;
    for (const VolumeDirectory& directory : volume.directories) paths.push_back(directory.path);
    for (const std::string& path : paths) {
      const std::size_t slash = path.rfind('/');
      if (slash == std::string::npos || holds(paths, path.substr(0, slash))) continue;
      problem("volume." + volume.name + ".directories." + path,
              fmt::format("its parent {} is not in the list", quote(path.substr(0, slash), 128)));
    }
  }

  void collect_claims() {
    for (const Config& config : m_.configs)
      claim(config.to, "config." + config.to, "to", "the config " + quote(config.to, 128), true);
    for (const Volume& volume : m_.volumes)
      claim(volume.path, "volume." + volume.name, "path", "the volume " + quote(volume.name), true);
    for (const File& file : m_.tree.files)
      claim(file.to, "tree.files." + file.to, "to", "the file " + quote(file.to, 128), false);
    for (std::size_t i = 0; i < m_.service.log_sockets.size(); ++i)
      claim(
          m_.service.log_sockets[i].substr(0, std::max<std::size_t>(m_.service.log_sockets[i].rfind('/'), 1)),
          fmt::format("service.log_sockets[{}]", i), "", "a log socket's directory", true);
    for (std::size_t i = 0; i < m_.tree.directories.size(); ++i)
      claim(m_.tree.directories[i], fmt::format("tree.directories[{}]", i), "",
            "the directory " + quote(m_.tree.directories[i], 128), false);
  }

  void claim(const std::string& path, std::string where, const std::string& key, std::string what,
             bool mount) {
    if (path.empty()) return;  // missing or broken: told already
    if (!key.empty() && m_.origins.contains(where + "." + key)) where += "." + key;
    claims_.push_back({path, std::move(where), std::move(what), mount});
  }

  // The jail's own mounts: what lies on or under them would be hidden, or hide them.
  void mount_points() {
    for (const Claim& claim : claims_) {
      const std::string path = quote(claim.path, 128);
      if (claim.mount && claim.path == "/") problem(claim.where, "cannot be mounted over the jail's root");
      for (const std::string_view own : {"/proc", "/sys", "/dev"})
        if (at_or_below(claim.path, own))
          problem(claim.where, fmt::format("{} is at or below {}, which is the jail's own", path, own));
      for (const std::string_view own : {"/run", "/tmp"}) {
        if (claim.mount && claim.path == own)
          problem(claim.where, fmt::format("the jail has a {} of its own; mount below it", own));
        if (!claim.mount && at_or_below(claim.path, own) && claim.path != own)
          problem(claim.where,
                  fmt::format("{} would be hidden by the jail's own empty {}; use a volume", path, own));
      }
      if (claim.mount && at_or_below(claim.path, "/run/systemd"))
        problem(claim.where, fmt::format("{} is where the supervisor keeps its notify socket", path));
    }
  }

  void clashes() {
    std::map<std::string_view, const Claim*> taken;
    for (const Claim& claim : claims_) {
      const auto [other, fresh] = taken.emplace(claim.path, &claim);
      if (!fresh && other->second->what != claim.what)  // the same entry twice is told already
        problem(claim.where,
                fmt::format("{} is claimed by {} already", quote(claim.path, 128), other->second->what));
    }
    for (const Claim& claim : claims_) {
      if (claim.mount) continue;
      for (std::size_t slash = claim.path.rfind('/'); slash != 0 && slash != std::string::npos;
           slash = claim.path.rfind('/', slash - 1)) {
        const auto above = taken.find(std::string_view(claim.path).substr(0, slash));
        if (above == taken.end() || !above->second->mount) continue;
        problem(claim.where, fmt::format("{} would be hidden by {}, mounted at {}", quote(claim.path, 128),
                                         above->second->what, quote(above->second->path, 128)));
        break;
      }
    }
  }

  const Manifest& m_;
  const Binder& binder_;
  const std::string& file_;
  Problems& problems_;
  std::vector<Claim> claims_;
};

}  // namespace

void check(const Manifest& manifest, const Binder& binder, const std::string& file, Problems& problems) {
  Checker(manifest, binder, file, problems).run();
}

const Origin* nearest_origin(const std::map<std::string, Origin>& origins, std::string path) {
  while (true) {
    const auto found = origins.find(path);
    if (found != origins.end()) return &found->second;
    const std::size_t cut = path.find_last_of(".[");
    if (cut == std::string::npos) return nullptr;
    path.resize(cut);
  }
}

}  // namespace jail::manifest
