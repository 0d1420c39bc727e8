#include "supervisor/loop/log_lines.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <string_view>

#include "supervisor/base/fd.h"
#include "supervisor/base/quote.h"

namespace jail::loop {
namespace {

using std::chrono::system_clock;

constexpr std::chrono::seconds span{10};

/// The whole lines at the end of the file.
std::vector<std::string> tail_of(const std::string& file) {
  constexpr off_t tail = 16384;
  const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) return {};
  std::string text(static_cast<std::size_t>(std::min(status.st_size, tail)), '\0');
  const ssize_t got = ::pread(fd.get(), text.data(), text.size(), std::max<off_t>(status.st_size - tail, 0));
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    if (at > 0 || status.st_size <= tail)
      lines.push_back(escape(std::string_view(text).substr(at, end - at)));
    at = end + 1;
  }
  return lines;
}

void keep_last(std::vector<std::string>& lines, std::size_t count) {
  if (lines.size() > count) lines.erase(lines.begin(), lines.end() - static_cast<std::ptrdiff_t>(count));
}

/// As the relay stamps its records, without the zone.
std::string stamp(system_clock::time_point time) {
  const auto whole = std::chrono::floor<std::chrono::seconds>(time);
  const auto rest = std::chrono::duration_cast<std::chrono::microseconds>(time - whole);
  const std::time_t seconds = system_clock::to_time_t(whole);
  std::tm local{};
  ::localtime_r(&seconds, &local);
  std::array<char, 32> text{};
  const std::size_t size = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &local);
  return fmt::format("{}.{:06}", std::string_view(text.data(), size), rest.count());
}

/// "TIME NAME[PID] FACILITY.SEVERITY ...": by the third word.
bool is_error(std::string_view line) {
  for (int word = 0; word < 2; ++word) line.remove_prefix(std::min(line.find(' '), line.size() - 1) + 1);
  const std::string_view priority = line.substr(0, line.find(' '));
  const std::size_t dot = priority.find('.');
  if (dot == std::string_view::npos) return false;
  const std::string_view severity = priority.substr(dot + 1);
  return severity == "err" || severity == "crit" || severity == "alert" || severity == "emerg";
}

}  // namespace

std::vector<std::string> last_lines(const std::string& file, std::size_t count) {
  std::vector<std::string> lines = tail_of(file);
  keep_last(lines, count);
  return lines;
}

std::vector<std::string> error_lines(const std::string& file, system_clock::time_point since,
                                     std::size_t count) {
  const std::string from = stamp(since);
  const std::string until = stamp(since + span);
  std::vector<std::string> lines = tail_of(file);
  std::erase_if(lines, [&](const std::string& line) {
    const std::string_view time = std::string_view(line).substr(0, from.size());
    return time < from || time > until || !is_error(line);
  });
  keep_last(lines, count);
  return lines;
}

}  // namespace jail::loop
