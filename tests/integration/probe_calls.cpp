#include "probe_calls.h"

#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <linux/netlink.h>
#include <linux/ptrace.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace jail::test {
namespace {

constexpr unsigned long high_bit = 1UL << 32U;
constexpr unsigned long get_terminal_attributes = TCGETS;

/// clone(2) as the kernel has it: the child has a copy of this memory, and ends at once.
long clone_with(unsigned long flags) {
  const long pid = ::syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
  if (pid == 0) ::_exit(0);
  return pid;
}

struct Call {
  const char* name;
  long (*make)();
};

// Arguments are such that a kernel which looked at them would say something else than the filter does,
// wherever there are such.
constexpr Call calls[] = {
    {"mount", [] { return ::syscall(SYS_mount, nullptr, "/tmp", nullptr, 0x1020UL, nullptr); }},
    {"umount2", [] { return ::syscall(SYS_umount2, "/tmp", 2); }},
    {"pivot_root", [] { return ::syscall(SYS_pivot_root, "/tmp", "/tmp"); }},
    {"chroot", [] { return ::syscall(SYS_chroot, "/no/such/place"); }},
    {"open_tree", [] { return ::syscall(SYS_open_tree, AT_FDCWD, "/", 0); }},
    {"open_tree_attr", [] { return ::syscall(467, AT_FDCWD, "/", 0, nullptr, 0); }},
    {"move_mount", [] { return ::syscall(SYS_move_mount, -1, "", -1, "", 0); }},
    {"fsopen", [] { return ::syscall(SYS_fsopen, "tmpfs", 0); }},
    {"fsconfig", [] { return ::syscall(SYS_fsconfig, -1, 6, nullptr, nullptr, 0); }},
    {"fsmount", [] { return ::syscall(SYS_fsmount, -1, 0, 0); }},
    {"fspick", [] { return ::syscall(SYS_fspick, AT_FDCWD, "/", 0); }},
    {"mount_setattr",
     [] {
       mount_attr attributes{};
       attributes.attr_clr = MOUNT_ATTR_RDONLY;
       return ::syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &attributes, sizeof attributes);
     }},
    {"unshare-user", [] { return ::syscall(SYS_unshare, CLONE_NEWUSER); }},
    {"unshare-mount", [] { return ::syscall(SYS_unshare, CLONE_NEWNS); }},
    {"unshare-nothing", [] { return ::syscall(SYS_unshare, 0); }},
    {"setns", [] { return ::syscall(SYS_setns, -1, 0); }},
    {"clone-user", [] { return clone_with(CLONE_NEWUSER); }},
    {"clone-mount", [] { return clone_with(CLONE_NEWNS); }},
    {"clone3", [] { return ::syscall(SYS_clone3, nullptr, 0); }},
    {"io_uring_setup", [] { return ::syscall(SYS_io_uring_setup, 1, nullptr); }},
    {"io_uring_enter", [] { return ::syscall(SYS_io_uring_enter, -1, 0, 0, 0, nullptr, 0); }},
    {"io_uring_register", [] { return ::syscall(SYS_io_uring_register, -1, 0, nullptr, 0); }},
    {"ptrace", [] { return ::syscall(SYS_ptrace, 0 /* TRACEME */, 0, nullptr, nullptr); }},
    {"process_vm_readv",
     [] { return ::syscall(SYS_process_vm_readv, ::getpid(), nullptr, 0, nullptr, 0, 0); }},
    {"process_vm_writev",
     [] { return ::syscall(SYS_process_vm_writev, ::getpid(), nullptr, 0, nullptr, 0, 0); }},
    {"pidfd_getfd", [] { return ::syscall(SYS_pidfd_getfd, -1, 0, 0); }},
    {"keyctl", [] { return ::syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0); }},
    {"add_key", [] { return ::syscall(SYS_add_key, nullptr, nullptr, nullptr, 0, 0); }},
    {"request_key", [] { return ::syscall(SYS_request_key, nullptr, nullptr, nullptr, 0); }},
    {"bpf", [] { return ::syscall(SYS_bpf, -1, nullptr, 0); }},
    {"perf_event_open", [] { return ::syscall(SYS_perf_event_open, nullptr, 0, -1, -1, 0); }},
    {"userfaultfd", [] { return ::syscall(SYS_userfaultfd, ~0); }},
    {"open_by_handle_at", [] { return ::syscall(SYS_open_by_handle_at, -1, nullptr, 0); }},
    {"kexec_load", [] { return ::syscall(SYS_kexec_load, 0, 0, nullptr, ~0UL); }},
    {"finit_module", [] { return ::syscall(SYS_finit_module, -1, nullptr, 0); }},
    {"reboot", [] { return ::syscall(SYS_reboot, 0, 0, 0, nullptr); }},
    // On /dev/null the kernel itself says ENOTTY; it looks at the low half of the request alone.
    {"tiocsti", [] { return ::syscall(SYS_ioctl, 0, TIOCSTI, "x"); }},
    {"tiocsti-high", [] { return ::syscall(SYS_ioctl, 0, TIOCSTI + high_bit, "x"); }},
    {"tioclinux", [] { return ::syscall(SYS_ioctl, 0, TIOCLINUX, "x"); }},
    {"tioclinux-high", [] { return ::syscall(SYS_ioctl, 0, TIOCLINUX + (high_bit << 9U), "x"); }},
    {"tcgets", [] { return ::syscall(SYS_ioctl, 0, get_terminal_attributes, nullptr); }},
    {"socket-packet", [] { return ::syscall(SYS_socket, AF_PACKET, SOCK_RAW, 0); }},
    {"socket-alg", [] { return ::syscall(SYS_socket, AF_ALG, SOCK_SEQPACKET, 0); }},
    {"socket-vsock", [] { return ::syscall(SYS_socket, AF_VSOCK, SOCK_STREAM, 0); }},
    {"socket-audit", [] { return ::syscall(SYS_socket, AF_NETLINK, SOCK_RAW, NETLINK_AUDIT); }},
    {"socket-inet", [] { return ::syscall(SYS_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0); }},
};

/// From wherever the working directory is, up to where `..` leads no further.
void look_from_the_top(const std::string& mark) {
  for (int i = 0; i < 64; ++i)
    if (::chdir("..") < 0) return;
  if (::chroot(".") < 0) return;
  std::printf("escape mark %s\n", outcome(::access(mark.c_str(), F_OK)));
}

}  // namespace

const char* outcome(long result) {
  return result >= 0 ? "ok" : strerrorname_np(errno);
}

void make_calls(const std::string& name) {
  for (const Call& call : calls)
    if (name.empty() || name == call.name) {
      std::fflush(stdout);  // a child has no copy of it
      std::printf("call %s %s\n", call.name, outcome(call.make()));
    }
}

void call_x32(const std::string&) {
  std::fflush(stdout);
  std::printf("x32 %s\n", outcome(::syscall(0x40000000L + SYS_getpid)));
}

void call_32_bit(const std::string&) {
  std::fflush(stdout);
#if defined(__x86_64__)
  long result = 20;  // getpid of i386
  __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
  std::printf("32-bit %s\n", result > 0 ? "ok" : "refused");
#endif
}

void escape_by_descriptor(const std::string& mark) {
  const int root = ::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const long inside = ::chroot("/tmp");
  std::printf("escape chroot %s\n", outcome(inside));
  if (inside == 0 && ::fchdir(root) == 0) look_from_the_top(mark);
  ::close(root);
}

void escape_by_move(const std::string& mark) {
  if (::mkdir("/tmp/inner", 0755) < 0 || ::mkdir("/tmp/inner/moved", 0755) < 0) return;
  int gone_in[2];
  int moved[2];
  if (::pipe2(gone_in, O_CLOEXEC) < 0 || ::pipe2(moved, O_CLOEXEC) < 0) return;
  std::fflush(stdout);
  const pid_t child = ::fork();
  char byte = 0;
  if (child == 0) {
    const bool inside = ::chdir("/tmp/inner/moved") == 0 && ::chroot("/tmp/inner") == 0;
    std::printf("escape chroot %s\n", outcome(inside ? 0 : -1));
    if (::write(gone_in[1], "x", 1) == 1 && ::read(moved[0], &byte, 1) == 1 && inside)
      look_from_the_top(mark);
    std::fflush(stdout);
    ::_exit(0);
  }
  if (::read(gone_in[0], &byte, 1) == 1 && ::rename("/tmp/inner/moved", "/tmp/moved") == 0 &&
      ::write(moved[1], "x", 1) == 1)
    ::waitpid(child, nullptr, 0);
}

void push(const std::string& fd) {
  const int number = std::atoi(fd.c_str());
  std::printf("push plain %s\n", outcome(::syscall(SYS_ioctl, number, TIOCSTI, "x")));
  std::printf("push high %s\n", outcome(::syscall(SYS_ioctl, number, TIOCSTI + high_bit, "x")));
}

}  // namespace jail::test
