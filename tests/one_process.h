// Signals in tests go to one process: kill(2) with 0 or -1, which an unset pid easily is, means a group or
// all.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include "catch.h"

/// kill(2), for a pid that is one.
inline int signal_one(pid_t pid, int number) {
  REQUIRE(pid > 1);
  return ::kill(pid, number);
}
