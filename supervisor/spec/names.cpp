// The kernel's names for capabilities and signals, as tables.
#include <linux/capability.h>

#include <algorithm>
#include <array>
#include <csignal>

#include "supervisor/spec/launch_spec.h"

namespace jail {
namespace {

using namespace std::string_view_literals;

// capabilities(7), in the order of linux/capability.h.
constexpr std::array capability_table{"chown"sv,
                                      "dac_override"sv,
                                      "dac_read_search"sv,
                                      "fowner"sv,
                                      "fsetid"sv,
                                      "kill"sv,
                                      "setgid"sv,
                                      "setuid"sv,
                                      "setpcap"sv,
                                      "linux_immutable"sv,
                                      "net_bind_service"sv,
                                      "net_broadcast"sv,
                                      "net_admin"sv,
                                      "net_raw"sv,
                                      "ipc_lock"sv,
                                      "ipc_owner"sv,
                                      "sys_module"sv,
                                      "sys_rawio"sv,
                                      "sys_chroot"sv,
                                      "sys_ptrace"sv,
                                      "sys_pacct"sv,
                                      "sys_admin"sv,
                                      "sys_boot"sv,
                                      "sys_nice"sv,
                                      "sys_resource"sv,
                                      "sys_time"sv,
                                      "sys_tty_config"sv,
                                      "mknod"sv,
                                      "lease"sv,
                                      "audit_write"sv,
                                      "audit_control"sv,
                                      "setfcap"sv,
                                      "mac_override"sv,
                                      "mac_admin"sv,
                                      "syslog"sv,
                                      "wake_alarm"sv,
                                      "block_suspend"sv,
                                      "audit_read"sv,
                                      "perfmon"sv,
                                      "bpf"sv,
                                      "checkpoint_restore"sv};
static_assert(capability_table.size() == CAP_CHECKPOINT_RESTORE + 1);
static_assert(CAP_NET_BIND_SERVICE == 10 && CAP_SETFCAP == 31);

struct Signal {
  int number;
  std::string_view name;
};

// signal(7), without the real-time ones.
constexpr std::array signal_table{
    Signal{SIGHUP, "SIGHUP"},       Signal{SIGINT, "SIGINT"},       Signal{SIGQUIT, "SIGQUIT"},
    Signal{SIGILL, "SIGILL"},       Signal{SIGTRAP, "SIGTRAP"},     Signal{SIGABRT, "SIGABRT"},
    Signal{SIGBUS, "SIGBUS"},       Signal{SIGFPE, "SIGFPE"},       Signal{SIGKILL, "SIGKILL"},
    Signal{SIGUSR1, "SIGUSR1"},     Signal{SIGSEGV, "SIGSEGV"},     Signal{SIGUSR2, "SIGUSR2"},
    Signal{SIGPIPE, "SIGPIPE"},     Signal{SIGALRM, "SIGALRM"},     Signal{SIGTERM, "SIGTERM"},
    Signal{SIGSTKFLT, "SIGSTKFLT"}, Signal{SIGCHLD, "SIGCHLD"},     Signal{SIGCONT, "SIGCONT"},
    Signal{SIGSTOP, "SIGSTOP"},     Signal{SIGTSTP, "SIGTSTP"},     Signal{SIGTTIN, "SIGTTIN"},
    Signal{SIGTTOU, "SIGTTOU"},     Signal{SIGURG, "SIGURG"},       Signal{SIGXCPU, "SIGXCPU"},
    Signal{SIGXFSZ, "SIGXFSZ"},     Signal{SIGVTALRM, "SIGVTALRM"}, Signal{SIGPROF, "SIGPROF"},
    Signal{SIGWINCH, "SIGWINCH"},   Signal{SIGIO, "SIGIO"},         Signal{SIGPWR, "SIGPWR"},
    Signal{SIGSYS, "SIGSYS"}};

}  // namespace

std::optional<unsigned> capability_number(std::string_view name) {
  const auto* found = std::find(capability_table.begin(), capability_table.end(), name);
  if (found == capability_table.end()) return std::nullopt;
  return static_cast<unsigned>(found - capability_table.begin());
}

std::string capability_name(unsigned number) {
  if (number < capability_table.size()) return std::string(capability_table.at(number));
  return fmt::format("cap_{}", number);
}

std::vector<std::string> capability_names(std::uint64_t mask) {
  std::vector<std::string> names;
  for (unsigned number = 0; number < 64; ++number)
    if ((mask >> number & 1U) != 0) names.push_back(capability_name(number));
  return names;
}

bool valid_network_name(std::string_view name) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  return !name.empty() && name.size() <= 64 && name.front() != '.' && name.front() != '-' &&
         std::all_of(name.begin(), name.end(),
                     [&](char c) { return plain(c) || c == '.' || c == '_' || c == '-'; });
}

std::optional<int> signal_number(std::string_view name) {
  for (const Signal& signal : signal_table)
    if (signal.name == name) return signal.number;
  return std::nullopt;
}

std::string signal_name(int number) {
  for (const Signal& signal : signal_table)
    if (signal.number == number) return std::string(signal.name);
  return fmt::format("signal {}", number);
}

}  // namespace jail
