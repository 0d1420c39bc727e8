// jail logs NAME...: what the relay wrote for a jail, its last lines first of all, and what comes after with
// --follow.
#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <limits>
#include <memory>

#include "jailer/cli/services.h"
#include "jailer/cli/verbs.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/spec/generation.h"

namespace jail::cli {
namespace {

constexpr std::size_t all_lines = std::numeric_limits<std::size_t>::max();
constexpr std::size_t chunk = std::size_t{64} << 10U;
constexpr int look_again_ms = 1000;  ///< in case the file system tells no changes (NFS)

struct Options {
  std::vector<std::string> names;
  std::string lines = "50";
  bool follow = false;
};

/// One log file, read up to `at`.
struct LogFile {
  std::string path;
  UniqueFd fd;
  off_t at = 0;
};

Result<std::size_t> line_count(const std::string& word) {
  if (word == "all") return all_lines;
  std::size_t count = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), count);
  if (error != std::errc{} || end != word.data() + word.size())
    return with_hint(fail(Exit::usage, "--lines: {} is no number of lines", quote(word)),
                     "give a number, or \"all\"");
  return count;
}

/// Nothing when the file does not exist (yet).
Result<UniqueFd> open_log(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!fd && errno == ENOENT) return UniqueFd();
  if (!fd && errno == EACCES)
    return with_hint(fail_errno(Exit::permission, errno, "{}: cannot read", path),
                     "logs are root's: use sudo");
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) return fail_errno(Exit::io, errno, "{}: cannot read", path);
  if (!S_ISREG(status.st_mode)) return fail(Exit::io, "{}: is no regular file", path);
  return fd;
}

/// Where the last `count` lines of a file of `size` bytes begin.
Result<off_t> start_of_tail(const LogFile& log, off_t size, std::size_t count) {
  if (count == all_lines) return 0;
  if (count == 0) return size;
  std::string buffer(chunk, '\0');
  std::size_t ends = 0;  // line ends seen; that of the last line starts nothing
  for (off_t end = size; end > 0;) {
    const off_t begin = std::max<off_t>(end - static_cast<off_t>(chunk), 0);
    const ssize_t got = ::pread(log.fd.get(), buffer.data(), static_cast<std::size_t>(end - begin), begin);
    if (got != end - begin) return fail_errno(Exit::io, got < 0 ? errno : EIO, "{}: cannot read", log.path);
    for (off_t i = got; i-- > 0;)
      if (buffer[static_cast<std::size_t>(i)] == '\n' && begin + i + 1 != size && ++ends == count)
        return begin + i + 1;
    end = begin;
  }
  return 0;
}

/// Hands on what was written behind `at`.
Result<void> pass_on(LogFile& log) {
  std::string buffer(chunk, '\0');
  while (log.fd) {
    const ssize_t got = ::pread(log.fd.get(), buffer.data(), buffer.size(), log.at);
    if (got < 0) return fail_errno(Exit::io, errno, "{}: cannot read", log.path);
    if (got == 0) return {};
    log.at += got;
    JAIL_CHECK(write_all(STDOUT_FILENO, std::string_view(buffer).substr(0, static_cast<std::size_t>(got)),
                         "standard output"));
  }
  return {};
}

/// The file under the name may be another by now (rotation), or have been emptied.
Result<void> take_up_again(LogFile& log) {
  struct stat named {};
  struct stat held {};
  const bool there = ::lstat(log.path.c_str(), &named) == 0;
  if (log.fd && ::fstat(log.fd.get(), &held) == 0) {
    if (held.st_size < log.at) log.at = 0;
    if (!there || (named.st_ino == held.st_ino && named.st_dev == held.st_dev)) return pass_on(log);
    JAIL_CHECK(pass_on(log));  // what was still written to the old one
  }
  JAIL_TRY(fd, open_log(log.path));
  log.fd = std::move(fd);
  log.at = 0;
  return pass_on(log);
}

Result<void> follow(const Instance& instance, std::vector<LogFile>& logs) {
  const UniqueFd changes(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!changes ||
      ::inotify_add_watch(changes.get(), instance.log.c_str(), IN_MODIFY | IN_CREATE | IN_MOVED_TO) < 0)
    return fail_errno(Exit::io, errno, "{}: cannot watch", instance.log);
  while (true) {
    for (LogFile& log : logs) JAIL_CHECK(take_up_again(log));
    pollfd ready{changes.get(), POLLIN, 0};
    if (::poll(&ready, 1, look_again_ms) < 0 && errno != EINTR)
      return fail_errno(Exit::io, errno, "cannot wait for log lines");
    std::string events(chunk, '\0');
    while (::read(changes.get(), events.data(), events.size()) > 0) {
    }
  }
}

/// A jail that was built but has logged nothing yet is fine; one that nobody knows is not.
Result<LogFile> open_one(const Instance& instance, const std::string& name, std::size_t count) {
  LogFile log{instance.log + "/" + name + ".log", {}, 0};
  JAIL_TRY(fd, open_log(log.path));
  log.fd = std::move(fd);
  struct stat status {};
  if (!log.fd) {
    JAIL_CHECK(generation::open_current(instance, name));
  } else if (::fstat(log.fd.get(), &status) == 0) {
    JAIL_TRY(start, start_of_tail(log, status.st_size, count));
    log.at = start;
  }
  return log;
}

int run(const Context& context, const Options& options) {
  const auto names = jail_names(options.names);
  if (!names) return report(names.error());
  const auto count = line_count(options.lines);
  if (!count) return report(count.error());
  std::vector<LogFile> logs;
  for (const std::string& name : *names) {
    auto log = open_one(context.instance, name, *count);
    if (!log) return report(log.error());
    logs.push_back(std::move(*log));
  }
  for (LogFile& log : logs)
    if (auto passed = pass_on(log); !passed) return report(passed.error());
  if (!options.follow) return 0;
  auto followed = follow(context.instance, logs);
  return followed ? 0 : report(followed.error());
}

}  // namespace

void add_logs(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "logs", "Print what services have logged");
  auto options = std::make_shared<Options>();
  verb->add_option("name", options->names, "The jails (or their manifests)")->required();
  verb->add_option("-n,--lines", options->lines, "The last so many lines, or \"all\" (50)")->type_name("N");
  verb->add_flag("-f,--follow", options->follow, "Go on with what is logged from now on");
  verb->callback(
      [&context, options] { context.run = [&context, options] { return run(context, *options); }; });
}

}  // namespace jail::cli
