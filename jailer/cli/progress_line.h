// How far a long work is, on a terminal: one line of stderr, drawn again and again, and gone at the end.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "jailer/cli/cli.h"
#include "jailer/tree/progress.h"

namespace jail::cli {

class ProgressLine {
 public:
  /// Draws "WHAT: 210 MiB of 502 MiB" for as long as this lives, once it has lived for a second. Does nothing
  /// where stderr is no terminal, or with --quiet.
  ProgressLine(const Context& context, std::string what);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  [[nodiscard]] tree::Progress& progress() { return progress_; }

 private:
  void draw();

  std::string what_;
  tree::Progress progress_;
  std::mutex mutex_;
  std::condition_variable ended_;
  bool end_ = false;
  std::thread thread_;
};

}  // namespace jail::cli
