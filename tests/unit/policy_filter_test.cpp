// The compiled program against a naive reading of the policy, over random calls.
#include <linux/audit.h>
#include <sys/syscall.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <random>

#include "bpf_interpreter.h"
#include "catch.h"
#include "jailer/policy/compiler.h"

namespace {

using namespace jail;

const std::set<std::string> common = {"read",   "write",      "openat",      "close",       "mmap",
                                      "futex",  "epoll_wait", "sendmsg",     "recvmsg",     "clone",
                                      "socket", "ioctl",      "socketpair",  "personality", "accept4",
                                      "bind",   "exit_group", "rt_sigreturn"};

constexpr std::uint32_t refuse = SECCOMP_RET_ERRNO | EPERM;
constexpr std::uint32_t missing = SECCOMP_RET_ERRNO | ENOSYS;

std::string compiled(const policy::Policy& policy) {
  const auto bytes = policy::compile(policy);
  INFO((bytes ? "" : bytes.error().message));
  REQUIRE(bytes);
  return *bytes;
}

std::uint32_t low(std::uint64_t value) {
  return static_cast<std::uint32_t>(value);
}

// What the header of compiler.h promises, in plain words; written without a look at the compiler's rules.
struct Naive {
  policy::Policy policy;
  std::set<int> allowed{}, known{}, told_missing{};

  explicit Naive(policy::Policy p) : policy(std::move(p)) {
    for (const std::string& name : policy.calls)
      if (const auto number = policy::call_number(name)) allowed.insert(*number);
    for (const std::string& name : policy::indispensable_calls())
      if (const auto number = policy::call_number(name)) allowed.insert(*number);
    for (const std::string& name : policy::call_names())
      if (const auto number = policy::call_number(name)) known.insert(*number);
    told_missing = {SYS_clone3, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register};
  }

  std::uint32_t socket(const seccomp_data& call) const {
    switch (low(call.args[0])) {
      case 1:
      case 2:
      case 10:
        return SECCOMP_RET_ALLOW;
      case 16:
        return low(call.args[2]) == 0 ? SECCOMP_RET_ALLOW : (SECCOMP_RET_ERRNO | EPROTONOSUPPORT);
      case 17:
        return policy.packet_sockets ? SECCOMP_RET_ALLOW : (SECCOMP_RET_ERRNO | EAFNOSUPPORT);
      default:
        return SECCOMP_RET_ERRNO | EAFNOSUPPORT;
    }
  }

  std::uint32_t operator()(const seccomp_data& call) const {
    if (call.arch != AUDIT_ARCH_X86_64) return SECCOMP_RET_KILL_PROCESS;
    if (call.nr == -1) return missing;  // a tracer's "skip this call"
    if ((static_cast<unsigned>(call.nr) & 0x40000000U) != 0 || call.nr < 0) return SECCOMP_RET_KILL_PROCESS;
    if (allowed.count(call.nr) == 0) {
      if (call.nr > 450 || known.count(call.nr) == 0 || told_missing.count(call.nr) != 0) return missing;
      return refuse;
    }
    switch (call.nr) {
      case SYS_socket:
        return socket(call);
        return low(call.args[0]) == 1 ? SECCOMP_RET_ALLOW : (SECCOMP_RET_ERRNO | EAFNOSUPPORT);
      case SYS_clone:
        return (call.args[0] & 0x7e020000U) != 0 && allowed.count(SYS_unshare) == 0 ? refuse
                                                                                    : SECCOMP_RET_ALLOW;
      case SYS_ioctl:
        return low(call.args[1]) == 0x5412 || low(call.args[1]) == 0x541c ? refuse : SECCOMP_RET_ALLOW;
      default:
        return SECCOMP_RET_ALLOW;
    }
  }
};

seccomp_data call(int number, std::uint64_t a0 = 0, std::uint64_t a1 = 0, std::uint64_t a2 = 0) {
  seccomp_data data{};
  data.nr = number;
  data.arch = AUDIT_ARCH_X86_64;
  data.args[0] = a0;
  data.args[1] = a1;
  data.args[2] = a2;
  return data;
}

// Numbers, values and high halves near where answers change, so that random calls meet the rules.
seccomp_data random_call(std::mt19937_64& random) {
  static constexpr std::uint64_t values[] = {
      0,      1,          2,          3,          9,          10,         16,         17,   0x5412,  0x541c,
      0x5401, 0x00020000, 0x7e020000, 0x10000000, 0x40000000, 0x80000000, 0xffffffff, 0x11, 0x3d0f00};
  static constexpr int arg_calls[] = {SYS_socket, SYS_socketpair, SYS_clone, SYS_ioctl, SYS_personality};
  seccomp_data data{};
  const auto pick = [&](std::uint64_t limit) { return random() % limit; };
  data.nr = pick(3) == 0 ? arg_calls[pick(std::size(arg_calls))] : static_cast<int>(pick(480));
  if (pick(16) == 0) data.nr |= 0x40000000;
  if (pick(64) == 0) data.nr = static_cast<int>(random());
  data.arch = AUDIT_ARCH_X86_64;
  if (pick(16) == 0) data.arch = pick(2) == 0 ? AUDIT_ARCH_I386 : static_cast<std::uint32_t>(random());
  data.instruction_pointer = random();
  for (auto& argument : data.args) {
    argument = pick(4) == 0 ? random() : values[pick(std::size(values))];
    if (pick(4) == 0) argument |= random() << 32U;
    if (pick(8) == 0) argument ^= 1ULL << pick(64);
  }
  return data;
}

void compare(const policy::Policy& policy, std::uint64_t seed, int cases) {
  const auto program = bpf::program(compiled(policy));
  REQUIRE(program.size() <= BPF_MAXINSNS);
  const Naive naive(policy);
  std::mt19937_64 random(seed);
  for (int i = 0; i < cases; ++i) {
    const seccomp_data data = random_call(random);
    const auto answer = bpf::run(program, data);
    const std::uint32_t expected = naive(data);
    if (answer && answer->action == expected) continue;
    INFO("seed " << seed << " case " << i << ": nr " << data.nr << " arch " << std::hex << data.arch
                 << " args " << data.args[0] << " " << data.args[1] << " " << data.args[2]);
    REQUIRE(answer);
    CHECK(answer->action == expected);
    return;
  }
}

std::uint64_t seed() {
  if (const char* text = std::getenv("JAIL_TEST_SEED")) return std::strtoull(text, nullptr, 10);
  return std::random_device{}();
}

}  // namespace

TEST_CASE("a compiled filter answers as its policy says") {
  const std::uint64_t first = seed();
  WARN("JAIL_TEST_SEED=" << first);
  compare({common, false}, first, 400'000);
  compare({common, true}, first + 1, 200'000);
  auto with_namespaces = common;
  with_namespaces.insert({"unshare", "clone3", "io_uring_setup", "fchmodat2"});
  compare({with_namespaces, false}, first + 2, 200'000);
  compare({{}, false}, first + 3, 100'000);
  std::mt19937_64 random(first);
  const auto names = policy::call_names();
  for (std::uint64_t round = 0; round < 8; ++round) {
    std::set<std::string> some;
    for (const std::string& name : names)
      if (random() % 3 == 0) some.insert(name);
    compare({some, random() % 2 == 0}, first + 10 + round, 50'000);
  }
}

TEST_CASE("foreign architectures and x32 are killed") {
  const auto program = bpf::program(compiled({common, false}));
  seccomp_data foreign = call(SYS_read);
  foreign.arch = AUDIT_ARCH_I386;
  CHECK(bpf::run(program, foreign)->action == SECCOMP_RET_KILL_PROCESS);
  CHECK(bpf::run(program, call(0x40000000 | SYS_getpid))->action == SECCOMP_RET_KILL_PROCESS);
  CHECK(bpf::run(program, call(0x40000000 | SYS_read))->action == SECCOMP_RET_KILL_PROCESS);
}

TEST_CASE("a terminal's input cannot be pushed, high bits or not") {
  const auto program = bpf::program(compiled({common, false}));
  for (const std::uint64_t high : {0ULL, 1ULL << 32U, 0xffffffffULL << 32U, 1ULL << 63U}) {
    CHECK(bpf::run(program, call(SYS_ioctl, 0, 0x5412 | high))->action == refuse);
    CHECK(bpf::run(program, call(SYS_ioctl, 0, 0x541c | high))->action == refuse);
    CHECK(bpf::run(program, call(SYS_ioctl, 0, 0x5401 | high))->action == SECCOMP_RET_ALLOW);
  }
}

TEST_CASE("what is new or cannot be filtered is said not to exist") {
  const auto program = bpf::program(compiled({common, false}));
  for (const int number : {SYS_clone3, SYS_io_uring_setup, 451, 462, 999, 100000})
    CHECK(bpf::run(program, call(number))->action == missing);
  for (const int number : {SYS_ptrace, SYS_mount, SYS_unshare, SYS_bpf, SYS_keyctl, SYS_reboot})
    CHECK(bpf::run(program, call(number))->action == refuse);
}

TEST_CASE("the indispensable calls are always allowed") {
  const auto program = bpf::program(compiled({}));
  for (const int number : {SYS_execve, SYS_exit_group, SYS_write, SYS_close, SYS_sendmsg, SYS_rt_sigreturn})
    CHECK(bpf::run(program, call(number))->action == SECCOMP_RET_ALLOW);
}

TEST_CASE("hot calls never look at arguments, and take few steps") {
  const auto program = bpf::program(compiled({common, false}));
  for (const int number :
       {SYS_read, SYS_write, SYS_sendmsg, SYS_recvmsg, SYS_epoll_wait, SYS_futex, SYS_mmap}) {
    const auto answer = bpf::run(program, call(number));
    REQUIRE(answer);
    CHECK(answer->action == SECCOMP_RET_ALLOW);
    CHECK_FALSE(answer->looked_at_arguments);
    CHECK(answer->steps < 30);
  }
}

TEST_CASE("equal policies are equal bytes, other ones are not") {
  CHECK(compiled({common, false}) == compiled({common, false}));
  CHECK(compiled({common, false}) != compiled({common, true}));
}

TEST_CASE("an unknown call is an error") {
  const auto bytes = policy::compile({{"reed"}, false});
  REQUIRE_FALSE(bytes);
  CHECK(bytes.error().message.find("'reed'") != std::string::npos);
  CHECK(policy::known_call("fchmodat2"));
  CHECK(policy::known_call("_llseek"));  // of another architecture
  CHECK_FALSE(policy::call_number("_llseek"));
}
