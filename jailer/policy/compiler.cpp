// The program is two of libseccomp's, joined: a guard that refuses bad arguments of allowed calls, and then
// the allow list, by number alone. libseccomp takes the rules of a filter as a union; it promises no order
// between rules of one call with different answers ("these arguments EPERM, all others allowed"), so each
// part only says what it can say as a union. tests/unit/policy_filter_test.cpp runs the result against the
// policy over random calls.
#include "jailer/policy/compiler.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "supervisor/base/fd.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail::policy {
namespace {

using Context = std::unique_ptr<void, decltype(&seccomp_release)>;
using Compare = scmp_arg_cmp;

constexpr std::uint64_t low_half = 0xffffffffULL;  // the kernel cuts int arguments to these
constexpr std::uint32_t allow = SCMP_ACT_ALLOW;
constexpr std::uint32_t refuse = SCMP_ACT_ERRNO(EPERM);
constexpr std::uint32_t not_there = SCMP_ACT_ERRNO(ENOSYS);

/// Calls younger than libseccomp's own table may be.
struct NewCall {
  const char* name;
  int number;
};
constexpr std::array<NewCall, 19> new_calls = {{
    {"cachestat", 451},         {"fchmodat2", 452},         {"map_shadow_stack", 453}, {"futex_wake", 454},
    {"futex_wait", 455},        {"futex_requeue", 456},     {"statmount", 457},        {"listmount", 458},
    {"lsm_get_self_attr", 459}, {"lsm_set_self_attr", 460}, {"lsm_list_modules", 461}, {"mseal", 462},
    {"setxattrat", 463},        {"getxattrat", 464},        {"listxattrat", 465},      {"removexattrat", 466},
    {"open_tree_attr", 467},    {"file_getattr", 468},      {"file_setattr", 469},
}};

/// Old enough for the epoch, and yet answered by ENOSYS: the first cannot be filtered by its flags (glibc
/// then uses clone; EPERM makes programs give up), the others do work that no filter sees.
constexpr std::array<const char*, 4> told_missing = {"clone3", "io_uring_setup", "io_uring_enter",
                                                     "io_uring_register"};

constexpr std::uint64_t namespace_flags =
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;

/// Arguments that are refused, and with which answer.
struct Rule {
  std::uint32_t action;
  std::vector<Compare> compare;
};

Compare low_is(unsigned argument, std::uint64_t value) {
  return Compare{argument, SCMP_CMP_MASKED_EQ, low_half, value};
}

Compare has_bit(unsigned argument, std::uint64_t bit) {
  return Compare{argument, SCMP_CMP_MASKED_EQ, bit, bit};
}

/// AF_UNIX, AF_INET, AF_INET6, and of AF_NETLINK the interfaces and routes: its other protocols reach
/// firewalls, audit, and much more of the kernel. "Not among these" as a union: the other small numbers, and
/// any higher bit.
std::vector<Rule> socket_rules(const Policy& policy) {
  constexpr unsigned first_high_bit = 6;
  std::vector<Rule> rules;
  for (unsigned family = 0; family < (1U << first_high_bit); ++family) {
    const bool plain = family == AF_UNIX || family == AF_INET || family == AF_INET6 || family == AF_NETLINK;
    if (plain || (family == AF_PACKET && policy.packet_sockets)) continue;
    rules.push_back({SCMP_ACT_ERRNO(EAFNOSUPPORT), {low_is(0, family)}});
  }
  for (unsigned i = first_high_bit; i < 32; ++i)
    rules.push_back({SCMP_ACT_ERRNO(EAFNOSUPPORT), {has_bit(0, 1ULL << i)}});
  for (unsigned i = 0; i < 32; ++i)  // NETLINK_ROUTE is 0
    rules.push_back({SCMP_ACT_ERRNO(EPROTONOSUPPORT), {low_is(0, AF_NETLINK), has_bit(2, 1ULL << i)}});
  return rules;
}

/// No new namespaces: in one of its own a process has every capability.
std::vector<Rule> clone_rules() {
#ifdef __s390__
  constexpr unsigned flags = 1;
#else
  constexpr unsigned flags = 0;
#endif
  std::vector<Rule> rules;
  for (std::uint64_t bit = 1; bit <= namespace_flags; bit <<= 1U) {
    if ((namespace_flags & bit) != 0) rules.push_back({refuse, {has_bit(flags, bit)}});
  }
  return rules;
}

/// What is refused of the allowed call `name`.
std::vector<Rule> argument_rules(const std::string& name, const Policy& policy) {
  if (name == "socket") return socket_rules(policy);
  if (name == "clone" && policy.calls.count("unshare") == 0)
    return clone_rules();  // who may unshare may clone, too
  // Both push characters into a terminal's input. The kernel looks at 32 bits alone, so must we.
  if (name == "ioctl") return {{refuse, {low_is(1, TIOCSTI)}}, {refuse, {low_is(1, TIOCLINUX)}}};
  return {};
}

Result<void> add_rule(void* context, std::uint32_t action, int number, const std::vector<Compare>& compare,
                      const std::string& name) {
  const int error = seccomp_rule_add_array(context, action, number, static_cast<unsigned>(compare.size()),
                                           compare.empty() ? nullptr : compare.data());
  if (error == 0) return {};
  return fail_errno(Exit::internal, -error, "seccomp filter: cannot add a rule for {}", name);
}

std::string name_of(int number) {
  const std::unique_ptr<char, decltype(&std::free)> name(
      seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number), &std::free);
  return name ? name.get() : std::string();
}

bool is_told_missing(const std::string& name) {
  return std::find(told_missing.begin(), told_missing.end(), name) != told_missing.end();
}

Result<void> add_allowed(void* context, const Policy& policy, std::set<int>& decided) {
  for (const std::string& name : policy.calls) {
    const auto number = call_number(name);
    if (!number && !known_call(name)) return fail(Exit::manifest, "unknown system call {}", quote(name));
    if (!number || !decided.insert(*number).second) continue;  // another architecture's, or by another name
    JAIL_CHECK(add_rule(context, allow, *number, {}, name));
  }
  return {};
}

/// EPERM for what the epoch's kernel has and the policy refuses. All else has the default answer, ENOSYS.
Result<void> add_refused(void* context, const std::set<int>& decided) {
  for (int number = 0; number <= epoch_last_call; ++number) {
    const std::string name = name_of(number);
    if (name.empty() || decided.count(number) != 0 || is_told_missing(name)) continue;
    JAIL_CHECK(add_rule(context, refuse, number, {}, name));
  }
  return {};
}

Result<std::string> exported(void* context) {
  const UniqueFd memory(::memfd_create("filter", MFD_CLOEXEC));
  if (!memory) return fail_errno(Exit::host, errno, "seccomp filter: memfd_create");
  if (const int error = seccomp_export_bpf(context, memory.get()); error != 0)
    return fail_errno(Exit::internal, -error, "seccomp filter: cannot export");
  if (::lseek(memory.get(), 0, SEEK_SET) != 0) return fail_errno(Exit::io, errno, "seccomp filter: lseek");
  JAIL_TRY(bytes, read_all(memory.get(), BPF_MAXINSNS * sizeof(sock_filter), "seccomp filter"));
  if (bytes.empty() || bytes.size() % sizeof(sock_filter) != 0)
    return fail(Exit::internal, "seccomp filter: {} bytes are no program", bytes.size());
  return std::move(bytes);
}

Result<Context> new_context(std::uint32_t default_action) {
  Context context(seccomp_init(default_action), &seccomp_release);
  if (!context) return fail(Exit::internal, "seccomp filter: seccomp_init failed");
  constexpr std::uint32_t binary_tree = 2;
  for (const auto& [attribute, value] :
       {std::pair{SCMP_FLTATR_ACT_BADARCH, std::uint32_t{SCMP_ACT_KILL_PROCESS}},
        std::pair{SCMP_FLTATR_CTL_OPTIMIZE, binary_tree}}) {
    if (const int error = seccomp_attr_set(context.get(), attribute, value); error != 0)
      return fail_errno(Exit::internal, -error, "seccomp filter: attribute {}", static_cast<int>(attribute));
  }
  return context;
}

Result<std::string> compile_guard(const Policy& policy) {
  JAIL_TRY(context, new_context(allow));
  for (const std::string& name : policy.calls) {
    const auto number = call_number(name);
    if (!number) continue;
    for (const Rule& rule : argument_rules(name, policy))
      JAIL_CHECK(add_rule(context.get(), rule.action, *number, rule.compare, name));
  }
  return exported(context.get());
}

Result<std::string> compile_allow_list(const Policy& policy) {
  JAIL_TRY(context, new_context(not_there));
  std::set<int> decided;
  JAIL_CHECK(add_allowed(context.get(), policy, decided));
  JAIL_CHECK(add_refused(context.get(), decided));
  return exported(context.get());
}

/// `first`, then `second`: where `first` would allow, the program goes on.
std::string joined(std::string first, const std::string& second) {
  const std::size_t count = first.size() / sizeof(sock_filter);
  for (std::size_t i = 0; i < count; ++i) {
    sock_filter op{};
    std::memcpy(&op, first.data() + i * sizeof op, sizeof op);
    if (op.code != (BPF_RET | BPF_K) || op.k != SECCOMP_RET_ALLOW) continue;
    op = BPF_STMT(BPF_JMP | BPF_JA, static_cast<std::uint32_t>(count - i - 1));
    std::memcpy(first.data() + i * sizeof op, &op, sizeof op);
  }
  return first + second;
}

}  // namespace

std::optional<int> call_number(const std::string& name) {
  const int number = seccomp_syscall_resolve_name(name.c_str());
  if (number >= 0) return number;
  for (const NewCall& call : new_calls) {
    if (name == call.name) return call.number;
  }
  return std::nullopt;
}

bool known_call(const std::string& name) {
  return seccomp_syscall_resolve_name(name.c_str()) != __NR_SCMP_ERROR || call_number(name).has_value();
}

std::vector<std::string> call_names() {
  std::vector<std::string> names;
  for (int number = 0; number <= epoch_last_call; ++number) {
    if (std::string name = name_of(number); !name.empty()) names.push_back(std::move(name));
  }
  for (const NewCall& call : new_calls) names.emplace_back(call.name);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

const std::vector<std::string>& indispensable_calls() {
  // The launcher loads the filter right before execve; when that fails it reports and ends.
  static const std::vector<std::string> calls = {"close",      "execve",       "execveat",        "exit",
                                                 "exit_group", "rt_sigreturn", "restart_syscall", "sendmsg",
                                                 "write"};
  return calls;
}

Result<std::string> compile(const Policy& policy) {
  Policy whole = policy;
  whole.calls.insert(indispensable_calls().begin(), indispensable_calls().end());
  JAIL_TRY(guard, compile_guard(whole));
  JAIL_TRY(list, compile_allow_list(whole));
  std::string program = joined(std::move(guard), list);
  if (program.size() > BPF_MAXINSNS * sizeof(sock_filter))
    return fail(Exit::internal, "seccomp filter: {} bytes are more than the kernel takes", program.size());
  return program;
}

}  // namespace jail::policy
