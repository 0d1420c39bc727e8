#include "jailer/cli/progress_line.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "jailer/cli/format.h"

namespace jail::cli {
namespace {

constexpr std::chrono::milliseconds before_the_first{1000};
constexpr std::chrono::milliseconds between{100};
constexpr const char* to_start_of_line = "\r\033[K";

}  // namespace

ProgressLine::ProgressLine(const Context& context, std::string what) : what_(std::move(what)) {
  if (context.quiet || ::isatty(STDERR_FILENO) != 1) return;
  try {
    thread_ = std::thread(&ProgressLine::draw, this);
  } catch (const std::system_error&) {
    // No thread to be had: the work is done all the same.
  }
}

ProgressLine::~ProgressLine() {
  if (!thread_.joinable()) return;
  {
    const std::scoped_lock guard(mutex_);
    end_ = true;
  }
  ended_.notify_one();
  thread_.join();
}

void ProgressLine::draw() {
  std::unique_lock lock(mutex_);
  bool drawn = false;
  for (auto pause = before_the_first; !ended_.wait_for(lock, pause, [this] { return end_; });
       pause = between) {
    fmt::print(stderr, "{}{}: {} of {}", to_start_of_line, what_, human_size(progress_.done),
               human_size(progress_.total));
    std::fflush(stderr);
    drawn = true;
  }
  if (drawn) fmt::print(stderr, "{}", to_start_of_line);
}

}  // namespace jail::cli
