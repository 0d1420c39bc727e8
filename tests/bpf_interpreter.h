// Runs a seccomp program over one seccomp_data as the kernel would: for tests of filters, with no kernel
// involved.
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

namespace bpf {

inline std::vector<sock_filter> program(const std::string& bytes) {
  std::vector<sock_filter> all(bytes.size() / sizeof(sock_filter));
  std::memcpy(all.data(), bytes.data(), all.size() * sizeof(sock_filter));
  return all;
}

struct Answer {
  std::uint32_t action = 0;
  bool looked_at_arguments = false;  ///< otherwise the kernel's bitmap can hold the answer
  unsigned steps = 0;
};

/// Nothing for a program that the kernel would not accept.
inline std::optional<Answer> run(const std::vector<sock_filter>& program, const seccomp_data& data) {
  std::uint32_t a = 0, x = 0, memory[BPF_MEMWORDS] = {};
  Answer answer;
  for (std::size_t pc = 0; pc < program.size(); ++pc) {
    const sock_filter& op = program[pc];
    ++answer.steps;
    const auto jump = [&](bool taken) { pc += taken ? op.jt : op.jf; };
    const std::uint32_t right = BPF_SRC(op.code) == BPF_X ? x : op.k;
    switch (op.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        if (op.k % 4 != 0 || op.k + 4 > sizeof data) return std::nullopt;
        std::memcpy(&a, reinterpret_cast<const char*>(&data) + op.k, 4);
        answer.looked_at_arguments |= op.k >= offsetof(seccomp_data, instruction_pointer);
        break;
      case BPF_LD | BPF_IMM:
        a = op.k;
        break;
      case BPF_LD | BPF_MEM:
        a = memory[op.k % BPF_MEMWORDS];
        break;
      case BPF_LDX | BPF_MEM:
        x = memory[op.k % BPF_MEMWORDS];
        break;
      case BPF_ST:
        memory[op.k % BPF_MEMWORDS] = a;
        break;
      case BPF_STX:
        memory[op.k % BPF_MEMWORDS] = x;
        break;
      case BPF_MISC | BPF_TAX:
        x = a;
        break;
      case BPF_MISC | BPF_TXA:
        a = x;
        break;
      case BPF_ALU | BPF_AND | BPF_K:
      case BPF_ALU | BPF_AND | BPF_X:
        a &= right;
        break;
      case BPF_JMP | BPF_JA:
        pc += op.k;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
      case BPF_JMP | BPF_JEQ | BPF_X:
        jump(a == right);
        break;
      case BPF_JMP | BPF_JGT | BPF_K:
      case BPF_JMP | BPF_JGT | BPF_X:
        jump(a > right);
        break;
      case BPF_JMP | BPF_JGE | BPF_K:
      case BPF_JMP | BPF_JGE | BPF_X:
        jump(a >= right);
        break;
      case BPF_JMP | BPF_JSET | BPF_K:
      case BPF_JMP | BPF_JSET | BPF_X:
        jump((a & right) != 0);
        break;
      case BPF_RET | BPF_K:
        answer.action = op.k;
        return answer;
      case BPF_RET | BPF_A:
        answer.action = a;
        return answer;
      default:
        return std::nullopt;
    }
  }
  return std::nullopt;  // ran off the end
}

}  // namespace bpf
