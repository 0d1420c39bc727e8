// refuser CALL ERRNO COMMAND...: runs a command for which the kernel answers one system call with an error,
// as an old kernel or a container's filter does. CALL: openat2 or copy_file_range or linkat.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

struct Call {
  const char* name;
  unsigned number;
};
constexpr Call calls[] = {{"openat2", SYS_openat2},
                          {"copy_file_range", SYS_copy_file_range},
                          {"linkat", SYS_linkat},
                          {"renameat2", SYS_renameat2}};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 64;
  const Call* call = nullptr;
  for (const Call& each : calls)
    if (std::strcmp(each.name, argv[1]) == 0) call = &each;
  const unsigned error = static_cast<unsigned>(std::strtoul(argv[2], nullptr, 10));
  if (call == nullptr || error == 0 || error > 4095) return 64;
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call->number, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{sizeof filter / sizeof *filter, filter};
  if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    std::perror("refuser: seccomp");
    return 71;
  }
  ::execvp(argv[3], argv + 3);
  std::perror(argv[3]);
  return 127;
}
