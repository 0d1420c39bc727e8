// Random graphs against the real loader: what `ld.so --list` prints is our list, name by name, and what it
// refuses we refuse. JAIL_GRAPHS=SEED[:NUMBER] runs one seed, or one graph of it, again.
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "catch.h"
#include "elf_graph.h"
#include "jailer/elf/resolver.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/io.h"

using namespace jail;
using namespace jail::elf;
using jail::elf::testing::Graph;
using jail::elf::testing::MachineLoader;
using Strings = std::vector<std::string>;
namespace fs = std::filesystem;

namespace {

constexpr unsigned kGraphs = 2000;
constexpr unsigned kBatch = 50;  // that share a Resolver, and so what it keeps
constexpr std::uint32_t kFixedSeed = 20221101;

struct Ran {
  int status = -1;
  std::string output;  ///< stdout and stderr
};

Ran run(Strings command, bool trace = false) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return {};
  const UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  std::vector<char*> argv;
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::string variable = "LD_TRACE_LOADED_OBJECTS=1";
  char* environment[] = {trace ? variable.data() : nullptr, nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, write_end.get(), 1);
  ::posix_spawn_file_actions_adddup2(&actions, write_end.get(), 2);
  ::posix_spawn_file_actions_addchdir_np(&actions, "/");
  pid_t pid = -1;
  // Another thread's child may hold the program open for writing until it is another program itself.
  int error = ETXTBSY;
  for (int left = 1000; error == ETXTBSY && left > 0; --left) {
    error = ::posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environment);
    if (error == ETXTBSY) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ::posix_spawn_file_actions_destroy(&actions);
  write_end.reset();
  Ran ran;
  if (error != 0) return ran;
  // Some filters send ld.so round and round, until it has no memory left.
  const rlimit limit{1, 1}, memory{std::size_t{64} << 20, std::size_t{64} << 20};
  ::prlimit(pid, RLIMIT_CPU, &limit, nullptr);
  ::prlimit(pid, RLIMIT_AS, &memory, nullptr);
  auto text = read_all(read_end.get(), 1 << 20, "ld.so");
  if (text) {
    ran.output = std::move(*text);
  } else {
    ::kill(pid, SIGKILL);
  }
  ::waitpid(pid, &ran.status, 0);
  return ran;
}

/// What `ld.so --help` says of the subdirectories that it searches.
std::optional<MachineLoader> ask_loader(const std::string& path, bool wide, const std::string& lib) {
  if (!fs::exists(path)) return std::nullopt;
  MachineLoader loader;
  loader.path = path;
  loader.wide = wide;
  loader.lib = lib;
  std::istringstream help(run({path, "--help"}).output);
  bool legacy = false;
  for (std::string line; std::getline(help, line);) {
    if (line.starts_with("Legacy HWCAP")) legacy = true;
    const std::size_t open = line.find(" (");
    if (!line.starts_with("  ") || open == std::string::npos) continue;
    const std::string name = line.substr(2, open - 2);
    const bool searched = line.find("supported, searched") != std::string::npos;
    if (line.find("AT_PLATFORM") != std::string::npos)
      loader.plain_platform = name == (wide ? "x86_64" : "i686");
    if (!searched) continue;
    (legacy ? loader.capabilities : loader.levels).push_back(name);
  }
  if (legacy)
    loader.legacy = {"tls/",
                     "haswell/",
                     wide ? "x86_64/" : "i686/",
                     wide ? "tls/x86_64/" : "tls/sse2/",
                     wide ? "x86_64/x86_64/" : "i686/sse2/",
                     "tls/avx512_1/"};
  return loader;
}

struct Listed {
  Strings objects;                 ///< "name => path"
  Strings missing;                 ///< names, in order, each once
  std::set<std::string> versions;  ///< "provider version requirer"
  std::string fatal;               ///< the loader's last words
};

void add_once(Strings& list, std::string text) {
  if (std::find(list.begin(), list.end(), text) == list.end()) list.push_back(std::move(text));
}

/// "P: version `V' not found (required by R)".
std::string version_of(const std::string& line, const std::string& open) {
  const std::size_t version = line.find(": version " + open);
  const std::size_t by = line.find("' not found (required by ");
  if (version == std::string::npos || by == std::string::npos) return {};
  const std::size_t start = version + 10 + open.size();
  const std::string requirer = line.substr(by + 25);
  return line.substr(0, version) + " " + line.substr(start, by - start) + " " +
         requirer.substr(0, requirer.find_first_of(")< "));
}

/// "prog: error while loading shared libraries: NAME: cannot open shared object file: words".
std::string missing_of(const std::string& line) {
  const std::string before = ": error while loading shared libraries: ";
  const std::size_t start = line.find(before);
  const std::size_t end =
      std::min(line.find(": cannot open shared object file"), line.find(": wrong ELF class: "));
  if (start == std::string::npos || end == std::string::npos) return {};
  return line.substr(start + before.size(), end - start - before.size());
}

void parse_object(const std::string& line, Listed& listed) {
  const std::string text = line.substr(1, line.rfind(" (0x") - 1);
  if (text.starts_with("linux-vdso") || text.starts_with("linux-gate") || text == "statically linked") return;
  const std::size_t arrow = text.find(" => ");
  if (text.ends_with(" => not found")) {
    add_once(listed.missing, text.substr(0, arrow));
  } else {
    listed.objects.push_back(arrow == std::string::npos ? text + " => " + text : text);
  }
}

void parse_error(const std::string& line, Listed& listed) {
  if (const std::string version = version_of(line, "`"); !version.empty()) {
    const std::size_t program = version.find(": ");  // "PROGRAM: PROVIDER ..."
    listed.versions.insert(program == std::string::npos ? version : version.substr(program + 2));
  } else if (const std::string name = missing_of(line); !name.empty()) {
    add_once(listed.missing, name);
  } else if (line.find("no version information available") == std::string::npos &&
             line.find(": weak version `") == std::string::npos) {
    listed.fatal = line;
  }
}

Listed parse(const Ran& ran) {
  Listed listed;
  std::istringstream lines(ran.output);
  for (std::string line; std::getline(lines, line);)
    line.starts_with("\t") ? parse_object(line, listed) : parse_error(line, listed);
  if (ran.status != 0 && listed.fatal.empty() && listed.missing.empty())
    listed.fatal = "status " + std::to_string(ran.status);
  return listed;
}

Listed of_closure(const Result<Closure>& closure) {
  Listed listed;
  if (closure) {
    for (std::size_t i = 1; i < closure->objects.size(); ++i) {
      const Object& object = closure->objects[i];
      listed.objects.push_back(object.name + " => " + object.path);
    }
    return listed;
  }
  const std::string& message = closure.error().message;
  std::istringstream lines(message);
  for (std::string line; std::getline(lines, line);) {
    line.erase(0, line.find_first_not_of(' '));
    const std::size_t end = line.find(" not found, needed by ");
    if (end != std::string::npos) {
      add_once(listed.missing, line.substr(0, end));
    } else {
      listed.fatal = line;
    }
  }
  std::string plain = message;
  plain.erase(0, plain.starts_with("'") ? 1 : 0);
  if (const std::size_t end = plain.find("': version '"); end != std::string::npos) plain.erase(end, 1);
  if (std::string version = version_of(plain, "'"); !version.empty()) {
    listed.versions.insert(version);
    listed.fatal.clear();
  }
  return listed;
}

std::string show(const Listed& listed) {
  std::string text;
  for (const std::string& object : listed.objects) text += "\n    " + object;
  for (const std::string& name : listed.missing) text += "\n    missing " + name;
  for (const std::string& version : listed.versions) text += "\n    version " + version;
  return listed.fatal.empty() ? text : text + "\n    fatal " + listed.fatal;
}

enum class Kind : std::uint8_t { equal, missing, version, fatal, endless, different };

/// The first path in the loader's last words: "prog: error while loading shared libraries: PATH: words".
std::string culprit(const std::string& words) {
  const std::string marker = "shared libraries: ";
  const std::size_t at = words.find(marker);
  const std::string rest = at == std::string::npos ? words : words.substr(at + marker.size());
  return rest.substr(0, rest.find(": "));
}

/// ld.so prints itself behind the kernel's object where that is needed by name, and not where it stands.
Strings order(const Listed& listed, const Graph& graph) {
  Strings objects = listed.objects;
  if (graph.vdso) {
    std::stable_partition(objects.begin(), objects.end(), [](const std::string& object) {
      return object.find("/ld-linux") == std::string::npos;
    });
  }
  return objects;
}

/// Both lists, or both refusals, as they should be. `all`: ld.so tells everything that is missing, and not
/// the first one only.
Kind compare(const Listed& real, const Listed& ours, const Graph& graph, bool all) {
  if (!real.fatal.empty())
    return ours.fatal.find(culprit(real.fatal)) != std::string::npos ? Kind::fatal : Kind::different;
  if (!all && !real.missing.empty())
    return !ours.missing.empty() && real.missing.front() == ours.missing.front() ? Kind::missing
                                                                                 : Kind::different;
  if (!ours.fatal.empty()) return Kind::different;
  // --list shows a missing DT_AUXILIARY as "not found", though no loader stops for it.
  Strings missing;
  for (const std::string& name : real.missing) {
    const auto& optional = graph.optional;
    const bool may_lack = std::any_of(optional.begin(), optional.end(), [&](const std::string& other) {
      const std::size_t slash = other.starts_with('$') ? other.find('/') : std::string::npos;
      return slash == std::string::npos ? name == other : name.ends_with(other.substr(slash));
    });
    const bool we_lack = std::find(ours.missing.begin(), ours.missing.end(), name) != ours.missing.end();
    if (!may_lack || we_lack) missing.push_back(name);
  }
  if (!missing.empty() || !ours.missing.empty())
    return std::set(missing.begin(), missing.end()) == std::set(ours.missing.begin(), ours.missing.end())
               ? Kind::missing
               : Kind::different;
  if (!real.versions.empty() || !ours.versions.empty()) {
    const bool among = !ours.versions.empty() && real.versions.contains(*ours.versions.begin());
    return among ? Kind::version : Kind::different;
  }
  return order(real, graph) == order(ours, graph) ? Kind::equal : Kind::different;
}

struct Tally {
  std::mutex lock;
  std::map<Kind, unsigned> counts;
  unsigned started = 0;
  Strings differences;
};

Strings join(Strings a, const Strings& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// One graph, listed by --list, or started by the kernel through a link; and a program that we say would
/// start is started.
void check(const MachineLoader& loader, Resolver& resolver, const Graph& graph, const std::string& label,
           bool tried, Tally& tally) {
  const bool by_kernel = !graph.link.empty();
  const std::string& path = by_kernel ? graph.link : graph.program;
  const Strings capabilities = join(by_kernel ? loader.levels : graph.levels, loader.capabilities);
  std::string mask = graph.levels.empty() ? "none" : "";
  for (const std::string& level : graph.levels) mask += (mask.empty() ? "" : ":") + level;
  const Ran ran =
      by_kernel ? run({path}, true) : run({loader.path, "--glibc-hwcaps-mask", mask, "--list", path});
  const Listed real = parse(ran);
  const auto closure = resolver.resolve(path, {.imports = false, .tried = tried, .processor = &capabilities});
  const Listed ours = of_closure(closure);
  const bool ends =
      !WIFSIGNALED(ran.status) && real.fatal.find("cannot allocate memory") == std::string::npos;
  Kind kind = ends ? compare(real, ours, graph, by_kernel) : Kind::endless;
  std::string started;
  // With the loader among its needs a program needs a libc as well.
  const bool starts = by_kernel && kind == Kind::equal && ran.output.find("/ld-linux") == std::string::npos;
  if (starts) {
    const Ran started_run = run({path});
    if (started_run.status != 0) {
      kind = Kind::different;
      started = "\n  started it fails: " + started_run.output;
    }
  }
  const std::lock_guard hold(tally.lock);
  ++tally.counts[kind];
  tally.started += starts ? 1 : 0;
  if (kind == Kind::different) {
    tally.differences.push_back(label + " " + path + " (--glibc-hwcaps-mask " + (by_kernel ? "all" : mask) +
                                ")\n  ld.so:" + show(real) + "\n  ours:" + show(ours) + started);
  }
}

/// A tmpfs that this process alone sees; or, for one graph that is to be looked at, a directory that stays.
class Place {
 public:
  explicit Place(bool stays) : stays_(stays) {
    path_ = fs::canonical(::mkdtemp(name_)).string();
    if (stays_) return;
    REQUIRE(::unshare(CLONE_NEWNS) == 0);
    REQUIRE(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
    REQUIRE(::mount("tmpfs", path_.c_str(), "tmpfs", 0, nullptr) == 0);
  }
  ~Place() {
    if (stays_) return;
    ::umount2(path_.c_str(), MNT_DETACH);
    ::rmdir(path_.c_str());
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  bool stays_;
  char name_[32] = "/tmp/jail-graphs-XXXXXX";
  std::string path_;
};

void check_batch(const std::vector<MachineLoader>& loaders, const std::string& place, std::uint32_t seed,
                 unsigned first, unsigned last, Tally& tally) {
  auto resolver = Resolver::open("/");
  for (unsigned number = first; number < last && resolver; ++number) {
    const std::string label = std::to_string(seed) + ":" + std::to_string(number);
    const MachineLoader& loader = loaders[number % 7 == 0 ? loaders.size() - 1 : 0];
    const Graph graph = make_graph(loader, place + "/" + std::to_string(number), seed, number);
    check(loader, *resolver, graph, label, number % 2 == 0, tally);
  }
}

/// Graphs first..last-1 of a seed, on all processors.
void check_seed(std::uint32_t seed, unsigned first, unsigned last) {
  std::printf("seed %u\n", seed);
  std::fflush(stdout);
  std::vector<MachineLoader> loaders;
  if (auto loader = ask_loader("/lib64/ld-linux-x86-64.so.2", true, "lib/x86_64-linux-gnu"))
    loaders.push_back(*loader);
  if (auto loader = ask_loader("/lib/ld-linux.so.2", false, "lib32")) loaders.push_back(*loader);
  REQUIRE(loaders.size() == 2);
  const Place place(last - first == 1);
  Tally tally;
  std::mutex lock;
  unsigned next = first;
  const auto work = [&] {
    for (;;) {
      unsigned start = 0;
      {
        const std::lock_guard hold(lock);
        if (next >= last) return;
        start = next;
        next = std::min(last, next + kBatch);
      }
      check_batch(loaders, place.path(), seed, start, std::min(last, start + kBatch), tally);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < std::max(1U, std::thread::hardware_concurrency()); ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  auto& counts = tally.counts;
  std::printf(
      "seed %u: %u graphs: %u equal lists, %u with the same missing, %u with the same version missing, %u "
      "with the same fatal file; %u on which ld.so itself crashes or never ends; %u programs started; %u "
      "different\n",
      seed, last - first, counts[Kind::equal], counts[Kind::missing], counts[Kind::version],
      counts[Kind::fatal], counts[Kind::endless], tally.started, counts[Kind::different]);
  for (std::size_t i = 0; i < tally.differences.size() && i < 5; ++i) UNSCOPED_INFO(tally.differences[i]);
  CHECK(counts[Kind::different] == 0);
  if (last - first < kGraphs) return;
  CHECK(counts[Kind::equal] > kGraphs / 4);
  CHECK(counts[Kind::missing] > kGraphs / 10);
  CHECK(counts[Kind::fatal] > kGraphs / 50);
  CHECK(counts[Kind::version] > kGraphs / 100);
  CHECK(counts[Kind::endless] < kGraphs / 100);
  CHECK(tally.started > kGraphs / 50);
}

}  // namespace

TEST_CASE("random graphs are listed as by the real loader") {
  if (const char* again = std::getenv("JAIL_GRAPHS")) {
    char* rest = nullptr;
    const auto seed = static_cast<std::uint32_t>(std::strtoul(again, &rest, 10));
    const unsigned number = *rest == ':' ? static_cast<unsigned>(std::strtoul(rest + 1, nullptr, 10)) : 0;
    return check_seed(seed, number, *rest == ':' ? number + 1 : kGraphs);
  }
  check_seed(kFixedSeed, 0, kGraphs);
  check_seed(std::random_device{}(), 0, kGraphs);
}
