// A keeper under test and the jaild that it believes in: this test program itself, run as "... --keeper-fd=3
// fake-jaild". The fake does what it is told, a word a line on its standard input, and says what it did on
// its standard output.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "supervisor/base/fd.h"

namespace jail::test {

/// bin/jail-keeper beside this program.
std::string keeper_program();

class KeeperProcess {
 public:
  /// Starts jail-keeper with a fake jaild, and waits until that is up. `prefix` is put before the command
  /// line (unshare ...).
  explicit KeeperProcess(std::vector<std::string> prefix = {},
                         std::vector<std::string> fake = {"fake-jaild"});
  ~KeeperProcess();
  KeeperProcess(const KeeperProcess&) = delete;
  KeeperProcess& operator=(const KeeperProcess&) = delete;

  void tell(const std::string& line) const;
  /// The next line of the fake's output that begins with `word`, without it; others are passed over. Fails
  /// the test after 10 s.
  std::string hear(const std::string& word);
  /// Whether nothing that begins with `word` comes for so long.
  bool silent(const std::string& word, std::chrono::milliseconds time);
  /// tell() and hear() of the same word.
  std::string ask(const std::string& word, const std::string& rest = "");

  /// The exit status of the keeper, 128+n for a signal. Fails the test after 10 s.
  int wait() const;

  pid_t pid = -1;    ///< the keeper
  pid_t jaild = -1;  ///< of the last "up" line heard
  std::string held;  ///< what that jaild got, in order: "a=content b=content"

 private:
  bool next_line(std::string& line, std::chrono::milliseconds time);
  UniqueFd in_;
  UniqueFd out_;
  std::string buffer_;
};

}  // namespace jail::test
