#include "jailer/init/program.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>

#include "supervisor/base/fd.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail::init {
namespace {

constexpr std::size_t max_output = 64UL << 10U;

/// Attributes and file actions of a posix_spawn: stdin from `input`, both streams into `output`, no signal
/// blocked or ignored, all other descriptors closed (every one of ours is close-on-exec).
class Setup {
 public:
  Setup(int input, int output) {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawn_file_actions_adddup2(&actions_, input, 0);
    ::posix_spawn_file_actions_adddup2(&actions_, output, 1);
    ::posix_spawn_file_actions_adddup2(&actions_, output, 2);
    ::posix_spawnattr_init(&attributes_);
    sigset_t none;
    sigset_t all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setsigdefault(&attributes_, &all);
    ::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  Setup(const Setup&) = delete;
  Setup& operator=(const Setup&) = delete;
  ~Setup() {
    ::posix_spawn_file_actions_destroy(&actions_);
    ::posix_spawnattr_destroy(&attributes_);
  }
  [[nodiscard]] const posix_spawn_file_actions_t* actions() const { return &actions_; }
  [[nodiscard]] const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
};

std::string find_program(const std::string& name) {
  for (const char* directory : {"/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"})
    if (std::string path = directory + name; ::access(path.c_str(), X_OK) == 0) return path;
  return {};
}

/// To the end of the pipe, so that the program is never stopped by a full one.
std::string drain(int fd) {
  std::string output;
  std::array<char, 4096> part{};
  while (true) {
    const ssize_t count = ::read(fd, part.data(), part.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    output.append(part.data(), std::min(static_cast<std::size_t>(count), max_output - output.size()));
  }
  while (!output.empty() && (output.back() == '\n' || output.back() == ' ')) output.pop_back();
  return output;
}

}  // namespace

Result<Finished> run_program(const std::string& name, const std::vector<std::string>& words) {
  const std::string path = find_program(name);
  if (path.empty())
    return fail(Exit::host, "{}: there is no such program in /usr/sbin, /usr/bin, /sbin or /bin", name);
  return run_path(path, words, {});
}

Result<Finished> run_path(const std::string& path, const std::vector<std::string>& words,
                          const std::string& input) {
  const UniqueFd source(::memfd_create("input", MFD_CLOEXEC));
  if (!source || !write_all(source.get(), input, "its input") || ::lseek(source.get(), 0, SEEK_SET) != 0)
    return fail_errno(Exit::host, errno, "{}: cannot prepare its input", path);
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(Exit::host, errno, "cannot make a pipe");
  const UniqueFd from(ends[0]);
  UniqueFd into(ends[1]);
  std::vector<std::string> all = {path.substr(path.rfind('/') + 1)};
  all.insert(all.end(), words.begin(), words.end());
  std::vector<char*> argv;
  for (std::string& word : all) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::string path_variable = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
  std::string locale = "LC_ALL=C";
  std::array<char*, 3> environment = {path_variable.data(), locale.data(), nullptr};
  const Setup setup(source.get(), into.get());
  pid_t pid = -1;
  if (const int error = ::posix_spawn(&pid, path.c_str(), setup.actions(), setup.attributes(), argv.data(),
                                      environment.data());
      error != 0)
    return fail_errno(Exit::host, error, "{}: cannot start it", path);
  into.reset();
  Finished finished;
  finished.output = drain(from.get());
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return fail_errno(Exit::internal, errno, "{}: cannot wait for its end", path);
  finished.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return finished;
}

Result<void> demand_program(const std::string& name, const std::vector<std::string>& words) {
  JAIL_TRY(finished, run_program(name, words));
  if (finished.status == 0) return {};
  return fail(Exit::host, "{} {}: exit status {}: {}", name, fmt::join(words, " "), finished.status,
              escape(finished.output));
}

}  // namespace jail::init
