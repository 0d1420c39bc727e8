#include "supervisor/spec/generation.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <array>
#include <charconv>

#include "supervisor/base/quote.h"

namespace jail::generation {

std::string file_name(unsigned long number) {
  return fmt::format("{:06}", number);
}

Result<Opened> open_number(const Instance& instance, const std::string& name, unsigned long number) {
  Opened opened;
  opened.number = number;
  opened.path = instance.jail(name) + "/gen/" + file_name(number);
  opened.dir.reset(::open(opened.path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!opened.dir)
    return fail_errno(errno == ENOENT ? Exit::no_input : Exit::io, errno,
                      "{}: generation {} cannot be opened", name, number);
  return opened;
}

Result<Opened> open_current(const Instance& instance, const std::string& name) {
  if (!valid_name(name)) return fail(Exit::usage, "{} cannot be the name of a jail", quote(name));
  const std::string link = instance.jail(name) + "/current";
  std::array<char, PATH_MAX> target{};
  const ssize_t length = ::readlink(link.c_str(), target.data(), target.size());
  if (length < 0) {
    if (errno == ENOENT || errno == ENOTDIR)
      return with_hint(fail(Exit::no_input, "{}: this jail has not been built", name),
                       fmt::format("run: jail build {}", name));
    return fail_errno(errno == EACCES ? Exit::permission : Exit::io, errno, "{}: cannot read the link", link);
  }
  std::string_view text(target.data(), static_cast<std::size_t>(length));
  unsigned long number = 0;
  const std::string_view prefix = "gen/";
  const char* end = text.data() + text.size();
  const bool ours = text.starts_with(prefix) &&
                    std::from_chars(text.data() + prefix.size(), end, number).ptr == end && number > 0;
  if (!ours)
    return with_hint(fail(Exit::config, "{}: points to {}, not to a generation", link, quote(text)),
                     fmt::format("remove the link and run: jail build {}", name));
  return open_number(instance, name, number);
}

Result<Opened> hold_number(const Instance& instance, const std::string& name, unsigned long number) {
  JAIL_TRY(opened, open_number(instance, name, number));
  const bool held = ::flock(opened.dir.get(), LOCK_SH | LOCK_NB) == 0;
  // Whoever removed it may have been done before we held it.
  struct stat seen {};
  struct stat there {};
  if (held && ::fstat(opened.dir.get(), &seen) == 0 && ::lstat(opened.path.c_str(), &there) == 0 &&
      seen.st_ino == there.st_ino && seen.st_dev == there.st_dev)
    return std::move(opened);
  return with_hint(fail(Exit::busy, "{}: generation {} is being removed", name, number), "try again");
}

Result<Opened> hold_current(const Instance& instance, const std::string& name) {
  for (int attempt = 0;; ++attempt) {
    JAIL_TRY(opened, open_current(instance, name));
    auto held = hold_number(instance, name, opened.number);
    // It was the current one when we looked: what removes it has switched to another.
    if (held || attempt == 8) return held;
  }
}

}  // namespace jail::generation
