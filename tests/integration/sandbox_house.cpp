#include "sandbox_house.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "catch.h"
#include "jailer/manifest/reader.h"
#include "jailer/policy/compiler.h"

namespace jail::test {

namespace fs = std::filesystem;

std::string program(const std::string& name) {
  const char* bin = std::getenv("JAIL_BIN");
  return (bin != nullptr ? fs::path(bin) : fs::read_symlink("/proc/self/exe").parent_path()) / name;
}

namespace {

void make_node(const fs::path& path, unsigned major, unsigned minor) {
  REQUIRE(::mknod(path.c_str(), S_IFCHR | 0666, ::makedev(major, minor)) == 0);
  REQUIRE(::chmod(path.c_str(), 0666) == 0);
}

Mount mount_of(Mount::Kind kind, const std::string& target) {
  Mount mount;
  mount.kind = kind;
  mount.target = target;
  mount.mode = 01777;
  mount.size = kind == Mount::Kind::tmpfs ? 1 << 20 : 0;
  mount.writable = kind == Mount::Kind::tmpfs;
  return mount;
}

}  // namespace

House::House() {
  std::string name = "/tmp/jail-sandbox-XXXXXX";
  REQUIRE(::mkdtemp(name.data()) != nullptr);
  top = name;
  REQUIRE(::chmod(name.c_str(), 0711) == 0);
  for (const char* directory : {"dev", "proc", "tmp", "run", "etc", "bin", "data"})
    fs::create_directories(tree() / directory);
  fs::create_directory(top / "volume");
  fs::permissions(top / "volume", fs::perms::all);
  fs::copy_file(program("probe"), tree() / "bin/probe");
  make_node(tree() / "dev/null", 1, 3);
  make_node(tree() / "dev/zero", 1, 5);
  filter = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};

  spec.name = "probe";
  spec.hostname = "jailed";
  spec.env = {"PATH=/bin"};
  spec.credentials.uid = 4001;
  spec.credentials.gid = 4002;
  spec.credentials.groups = {4003, 4004};
  spec.devices = {{"null"}};
  spec.rlimits = {{"nofile", 512, 1024}, {"core", 0, 0}};
  Mount volume = mount_of(Mount::Kind::bind, "/data");
  volume.source = top / "volume";
  volume.writable = true;
  spec.mounts = {mount_of(Mount::Kind::dev, "/dev"), mount_of(Mount::Kind::proc, "/proc"),
                 mount_of(Mount::Kind::tmpfs, "/tmp"), mount_of(Mount::Kind::tmpfs, "/run"), volume};
}

House::~House() {
  std::error_code ignored;
  fs::remove_all(top, ignored);
}

void House::ask(std::vector<std::string> verbs) {
  spec.argv = {"/bin/probe"};
  spec.argv.insert(spec.argv.end(), verbs.begin(), verbs.end());
}

Result<sandbox::Prepared> House::prepare() const {
  std::ofstream(top / "gen/launch.json") << to_json(spec);
  std::ofstream(top / "gen/filter.bpf", std::ios::binary)
      .write(reinterpret_cast<const char*>(filter.data()),
             static_cast<std::streamsize>(filter.size() * sizeof(sock_filter)));
  generation::Opened opened;
  opened.path = top / "gen";
  opened.number = 1;
  opened.dir.reset(::open(opened.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  REQUIRE(opened.dir.valid());
  return sandbox::Prepared::prepare(opened);
}

bool Outcome::says(const std::string& line) const {
  return ("\n" + output).find("\n" + line + "\n") != std::string::npos;
}

std::vector<std::string> Outcome::lines(const std::string& start) const {
  std::vector<std::string> found;
  std::istringstream text(output);
  for (std::string line; std::getline(text, line);)
    if (line.starts_with(start)) found.push_back(line.substr(start.size()));
  return found;
}

std::vector<sock_filter> daemon_filter() {
  Instance instance;
  instance.manifest_dirs = {JAIL_MANIFESTS};
  policy::Policy policy;
  for (const char* name : {"@default", "@network-server", "@file-write"}) {
    const auto group = manifest::load_syscall_group(instance, name);
    REQUIRE(group);
    policy.calls.insert(group->begin(), group->end());
  }
  const auto bytes = policy::compile(policy);
  REQUIRE(bytes);
  std::vector<sock_filter> program(bytes->size() / sizeof(sock_filter));
  std::memcpy(program.data(), bytes->data(), bytes->size());
  return program;
}

Result<Running> start(const sandbox::Prepared& prepared, sandbox::LaunchInputs inputs) {
  const UniqueFd init(::open(program("jail-init").c_str(), O_PATH | O_CLOEXEC));
  REQUIRE(init.valid());
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  Running running;
  running.output.reset(ends[0]);
  const UniqueFd write_end(ends[1]);
  if (inputs.init_fd < 0) inputs.init_fd = init.get();
  inputs.stdout_fd = inputs.stderr_fd = write_end.get();
  JAIL_TRY(launched, sandbox::launch(prepared, inputs));
  running.launched = std::move(launched);
  return running;
}

Result<sandbox::Report> next_report(const Running& running) {
  for (;;) {
    JAIL_TRY(report, sandbox::read_report(running.launched.report.get()));
    if (report) return std::move(*report);
    pollfd ready{running.launched.report.get(), POLLIN, 0};
    if (::poll(&ready, 1, 10'000) == 0) return fail(Exit::io, "no report in ten seconds");
  }
}

Outcome finish(Running running) {
  Outcome outcome;
  for (;;) {
    auto report = next_report(running);
    if (!report) {
      CHECK(report.error().exit == Exit::unavailable);
      break;
    }
    switch (report->kind) {
      case sandbox::Report::Kind::failed:
        CHECK_FALSE(outcome.failed);
        outcome.failed = true;
        outcome.step = report->step;
        outcome.error = report->error;
        break;
      case sandbox::Report::Kind::running:
        CHECK(report->daemon.valid());
        outcome.running = true;
        outcome.pid = report->pid;
        break;
      case sandbox::Report::Kind::exited:
        outcome.exited = true;
        outcome.status = report->status;
        break;
    }
  }
  pollfd readable{running.output.get(), POLLIN, 0};
  char bytes[4096];
  while (::poll(&readable, 1, 10'000) > 0) {
    const ssize_t length = ::read(running.output.get(), bytes, sizeof bytes);
    if (length <= 0) break;
    outcome.output.append(bytes, static_cast<std::size_t>(length));
  }
  siginfo_t info{};
  CHECK(::waitid(P_PIDFD, static_cast<id_t>(running.launched.init.get()), &info, WEXITED) == 0);
  return outcome;
}

Outcome live(const House& house, sandbox::LaunchInputs inputs) {
  auto prepared = house.prepare();
  if (!prepared) FAIL(prepared.error().message);
  auto running = start(*prepared, inputs);
  if (!running) FAIL(running.error().message);
  return finish(std::move(*running));
}

}  // namespace jail::test
