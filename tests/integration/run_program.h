// A program of the machine, run to its end, and what it wrote.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "catch.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/io.h"

namespace jail::test {

struct Ran {
  int status = -1;     ///< as waitpid(2) gives it
  std::string output;  ///< stdout and stderr
};

/// Looked up in PATH; stdin is /dev/null. Requires that it starts.
inline Ran run_program(const std::vector<std::string>& command) {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const UniqueFd output(ends[0]);
  UniqueFd write_end(ends[1]);
  std::vector<char*> argv;
  for (const std::string& argument : command) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  REQUIRE(::posix_spawn_file_actions_init(&actions) == 0);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, write_end.get(), 1);
  ::posix_spawn_file_actions_adddup2(&actions, write_end.get(), 2);
  pid_t pid = -1;
  INFO(command.front());
  const int error = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  REQUIRE(error == 0);
  write_end.reset();
  Ran ran;
  auto text = read_all(output.get(), 16 << 20, command.front());
  REQUIRE(::waitpid(pid, &ran.status, 0) == pid);
  REQUIRE(text);
  ran.output = std::move(*text);
  return ran;
}

}  // namespace jail::test
