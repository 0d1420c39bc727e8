#include "supervisor/loop/journal.h"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/details/null_mutex.h>
#include <spdlog/sinks/base_sink.h>

#include <cerrno>

#include "supervisor/base/fd.h"
#include "supervisor/base/quote.h"

namespace jail::loop {

/// Whole lines to a descriptor. A pipe or terminal that nobody empties loses lines: jaild waits for no
/// reader.
class LineSink final : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
 public:
  explicit LineSink(UniqueFd fd) : fd_(std::move(fd)) {}
  void replace(UniqueFd fd) { fd_ = std::move(fd); }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    pollfd ready{fd_.get(), POLLOUT, 0};
    if (::poll(&ready, 1, 0) == 1 && (ready.revents & POLLOUT) != 0)
      (void)!::write(fd_.get(), line.data(), line.size());
  }
  void flush_() override {}

 private:
  UniqueFd fd_;
};

namespace {

Result<UniqueFd> open_log(const std::string& path) {
  UniqueFd fd(::open(path.c_str(),
                     O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0640));
  if (!fd) return fail_errno(Exit::cannot_create, errno, "{}: cannot open the log", quote(path));
  return fd;
}

}  // namespace

Result<Journal> Journal::open(const std::string& file, bool verbose) {
  JAIL_TRY(fd, open_log(file));
  Journal journal;
  journal.path_ = file;
  journal.file_ = std::make_shared<LineSink>(std::move(fd));
  UniqueFd errors(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3));
  std::vector<spdlog::sink_ptr> sinks{journal.file_};
  if (errors) sinks.push_back(std::make_shared<LineSink>(std::move(errors)));
  journal.logger_ = std::make_shared<spdlog::logger>("jaild", sinks.begin(), sinks.end());
  journal.logger_->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z jaild[%P] %l: %v");
  journal.logger_->set_level(verbose ? spdlog::level::debug : spdlog::level::info);
  return journal;
}

void Journal::reopen() {
  auto fd = open_log(path_);
  if (fd)
    file_->replace(std::move(*fd));
  else
    logger_->error("{}", fd.error().message);
}

}  // namespace jail::loop
