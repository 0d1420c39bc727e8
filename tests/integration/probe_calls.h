// The probe's verbs that make system calls which no daemon should get away with.
#pragma once

#include <string>

namespace jail::test {

/// "ok" or the name of the errno.
const char* outcome(long result);

/// Makes the call `name` of the table in probe_calls.cpp, or, when it is empty, each of them: "call NAME
/// OUTCOME".
void make_calls(const std::string& name);

/// getpid by x32's number, and by the 32-bit entry. Under a filter neither returns.
void call_x32(const std::string&);
void call_32_bit(const std::string&);

/// The classic ways out of a chroot, with CAP_SYS_CHROOT in hand: by a descriptor of the root, and by a
/// working directory that is moved out of the inner chroot. `mark` exists on the host only.
void escape_by_descriptor(const std::string& mark);
void escape_by_move(const std::string& mark);

/// Tries to put a byte into the queue of the terminal at a descriptor.
void push(const std::string& fd);

}  // namespace jail::test
