// jaild's own log: lines on standard error and in LOG/jaild.log.
#pragma once

#include <spdlog/logger.h>

#include <memory>
#include <string>

#include "supervisor/base/error.h"

namespace jail::loop {

class LineSink;

class Journal {
 public:
  /// `file` is made where it is missing. A file that cannot be opened is an error.
  [[nodiscard]] static Result<Journal> open(const std::string& file, bool verbose);
  /// Opens the file by its name again, after it was rotated.
  void reopen();
  [[nodiscard]] spdlog::logger& log() const { return *logger_; }

 private:
  std::string path_;
  std::shared_ptr<LineSink> file_;
  std::shared_ptr<spdlog::logger> logger_;
};

}  // namespace jail::loop
