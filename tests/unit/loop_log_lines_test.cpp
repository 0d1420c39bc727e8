#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <fstream>

#include "catch.h"
#include "supervisor/loop/log_lines.h"

using namespace jail::loop;
using std::chrono::system_clock;

namespace {

struct Log {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("log_lines." + std::to_string(::getpid()));
  explicit Log(const std::string& text) { std::ofstream(path) << text; }
  ~Log() { std::filesystem::remove(path); }
};

system_clock::time_point noon() {
  std::tm tm{};
  tm.tm_year = 126;
  tm.tm_mday = 2;
  tm.tm_hour = 12;
  tm.tm_isdst = -1;
  return system_clock::from_time_t(std::mktime(&tm));
}

}  // namespace

TEST_CASE(
    "errors are told that were logged from the start or reload on, and no older, later or lesser ones") {
  const Log log(
      "2026-01-02T11:59:59.999999+00:00 named[2] daemon.err named[2]: before\n"
      "2026-01-02T12:00:00.000001+00:00 named[2] daemon.err named[2]: just then\n"
      "2026-01-02T12:00:01.000000+00:00 named[2] daemon.warning named[2]: a warning\n"
      "2026-01-02T12:00:01.000000+00:00 named stderr: daemon.err\n"
      "2026-01-02T12:00:09.000000+00:00 named[2] mail.crit daemon.info\n"
      "\n"
      "word\n"
      "2026-01-02T12:00:10.000001+00:00 named[2] daemon.emerg named[2]: too late\n");
  const auto lines = error_lines(log.path, noon(), 16);
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].ends_with("just then"));
  CHECK(lines[1].ends_with("daemon.info"));
  CHECK(error_lines(log.path, noon(), 1) == std::vector<std::string>{lines[1]});
  CHECK(last_lines(log.path, 2).front() == "word");
  CHECK(error_lines("/nonexistent", noon(), 1).empty());
}
