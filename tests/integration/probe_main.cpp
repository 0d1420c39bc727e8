// probe: asks questions from inside a jail. Each argument is VERB or VERB:ARGUMENT; each answer is one line
// or more on stdout, "VERB ..." first. Static, so that a tree that holds nothing else can run it.
#include <fcntl.h>
#include <grp.h>
#include <linux/keyctl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "probe_calls.h"

namespace {

using namespace jail::test;
using Argument = const std::string&;

void print_file(const char* verb, const char* path) {
  std::FILE* file = std::fopen(path, "re");
  if (file == nullptr) {
    std::printf("%s %s\n", verb, outcome(-1));
    return;
  }
  char line[4096];
  while (std::fgets(line, sizeof line, file) != nullptr) std::printf("%s %s", verb, line);
  std::fclose(file);
}

void fds(Argument) {
  std::printf("fds");
  for (int fd = 0; fd < 20000; ++fd)
    if (::fcntl(fd, F_GETFD) >= 0) std::printf(" %d", fd);
  std::printf("\n");
}
void cat(Argument path) {
  print_file("cat", path.c_str());
}
void status(Argument) {
  print_file("status", "/proc/self/status");
}
void mounts(Argument) {
  print_file("mounts", "/proc/self/mounts");
}
void regain(Argument) {
  std::printf("regain uid %s\n", outcome(::setresuid(0, 0, 0)));
  std::printf("regain gid %s\n", outcome(::setresgid(0, 0, 0)));
  std::printf("regain groups %s\n", outcome(::setgroups(0, nullptr)));
}
void host(Argument) {
  char name[128] = {};
  ::gethostname(name, sizeof name - 1);
  std::printf("host %s\n", name);
}
void touch(Argument path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  std::printf("touch %s %s\n", path.c_str(), outcome(fd));
  if (fd >= 0) ::close(fd);
}
void make(Argument path) {
  std::printf("make %s %s\n", path.c_str(), outcome(::mkdir(path.c_str(), 0755)));
}
void list(Argument path) {
  std::printf("list %s %s\n", path.c_str(), outcome(::access(path.c_str(), F_OK)));
}
void write_to(Argument path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  std::printf("write %s %s\n", path.c_str(), outcome(fd < 0 ? -1 : ::write(fd, "x", 1)));
  if (fd >= 0) ::close(fd);
}
void read_from(Argument path) {
  char byte = 0;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  std::printf("read %s %s\n", path.c_str(), outcome(fd < 0 ? -1 : ::read(fd, &byte, 1)));
  if (fd >= 0) ::close(fd);
}
void change_mode(Argument path) {
  std::printf("chmod %s %s\n", path.c_str(), outcome(::chmod(path.c_str(), 0600)));
}
void stdin_mode(Argument) {
  std::printf("stdin-mode %s\n", outcome(::fchmod(0, 0600)));
}
void stdin_read(Argument) {
  char byte = 0;
  std::printf("stdin-read %zd\n", ::read(0, &byte, 1));
}
void node(Argument path) {
  std::printf("node mknod %s\n", outcome(::mknod(path.c_str(), S_IFCHR | 0666, ::makedev(1, 3))));
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  std::printf("node open %s\n", outcome(fd));
}
void attack_init(Argument) {
  std::printf("init ptrace %s\n", outcome(::ptrace(PTRACE_ATTACH, 1, nullptr, nullptr)));
  std::printf("init kill %s\n", outcome(::kill(1, SIGTERM)));
  char target[PATH_MAX];
  std::printf("init exe %s\n", outcome(::readlink("/proc/1/exe", target, sizeof target)));
  std::printf("init dir %s\n", outcome(::open("/proc/1", O_RDONLY | O_CLOEXEC)));
  std::printf("init vm %s\n", outcome(::syscall(SYS_pidfd_getfd, ::syscall(SYS_pidfd_open, 1, 0), 3, 0)));
}
void keyring(Argument) {
  std::printf("keyring %ld\n", ::syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0));
}
void session(Argument) {
  std::printf("session pid=%d sid=%d pgid=%d ppid=%d\n", ::getpid(), ::getsid(0), ::getpgid(0), ::getppid());
}
void mask(Argument) {
  const mode_t old = ::umask(0);
  ::umask(old);
  std::printf("mask %03o\n", static_cast<unsigned>(old));
}
void directory(Argument) {
  char path[PATH_MAX] = {};
  std::printf("directory %s\n", ::getcwd(path, sizeof path) != nullptr ? path : strerrorname_np(errno));
}
void priority(Argument) {
  std::printf("priority %d\n", ::getpriority(PRIO_PROCESS, 0));
}
void limit(Argument) {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  std::printf("limit nofile %lu %lu\n", files.rlim_cur, files.rlim_max);
}
void environment(Argument) {
  for (char** variable = environ; *variable != nullptr; ++variable)
    std::printf("environment %s\n", *variable);
}
void listen_pid(Argument) {
  const char* text = std::getenv("LISTEN_PID");
  std::printf("listen-pid %s\n", text != nullptr && std::atoi(text) == ::getpid() ? "mine" : "not mine");
}
void memory(Argument) {
  void* both = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  std::printf("memory %s\n", both == MAP_FAILED ? strerrorname_np(errno) : "ok");
}
void abstract(Argument name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  std::printf("abstract %s\n", outcome(::connect(fd, reinterpret_cast<sockaddr*>(&address), length)));
  ::close(fd);
}
/// "tcp-connect:PORT", "tcp-bind:PORT", "udp-bind:PORT" of 127.0.0.1.
sockaddr_in loopback(Argument port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port.c_str())));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}
void tcp_connect(Argument port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = loopback(port);
  const long result = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  std::printf("tcp-connect %s %s\n", port.c_str(), outcome(result));
  ::close(fd);
}
void bind_one(const char* verb, int type, Argument port) {
  const int fd = ::socket(AF_INET, type | SOCK_CLOEXEC, 0);
  const sockaddr_in address = loopback(port);
  const long result = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  std::printf("%s %s %s\n", verb, port.c_str(), outcome(result));
  ::close(fd);
}
void tcp_bind(Argument port) {
  bind_one("tcp-bind", SOCK_STREAM, port);
}
void udp_bind(Argument port) {
  bind_one("udp-bind", SOCK_DGRAM, port);
}
void datagram(Argument path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const long sent = ::sendto(fd, "hello", 5, 0, reinterpret_cast<sockaddr*>(&address), sizeof address);
  std::printf("datagram %s %s\n", path.c_str(), outcome(sent));
  ::close(fd);
}
/// A root that drops its rights by itself.
void become(Argument id) {
  const auto number = static_cast<uid_t>(std::atoi(id.c_str()));
  std::printf("become groups %s\n", outcome(::setgroups(0, nullptr)));
  std::printf("become gid %s\n", outcome(::setresgid(number, number, number)));
  std::printf("become uid %s\n", outcome(::setresuid(number, number, number)));
}
void link_of(Argument path) {
  char target[PATH_MAX] = {};
  const long length = ::readlink(path.c_str(), target, sizeof target - 1);
  std::printf("link %s %s\n", path.c_str(), length < 0 ? outcome(length) : target);
}
void namespaces(Argument) {
  for (const char* name : {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"})
    link_of(std::string("/proc/self/ns/") + name);
}
void thread(Argument) {
  bool ran = false;
  std::thread([&ran] { ran = true; }).join();
  std::printf("thread %s\n", ran ? "ok" : "lost");
}
void leave(Argument number) {
  std::fflush(stdout);
  ::_exit(std::atoi(number.c_str()));
}
void die(Argument number) {
  std::fflush(stdout);
  ::raise(std::atoi(number.c_str()));
}
/// A grandchild that holds stdout and sleeps on, adopted by the init.
void orphan(Argument) {
  std::fflush(stdout);
  if (::fork() == 0) {
    ::setsid();
    if (::fork() == 0) ::poll(nullptr, 0, 60'000);
    ::_exit(0);
  }
  ::poll(nullptr, 0, 20);
}
void wait_forever(Argument) {
  std::fflush(stdout);
  for (;;) ::pause();
}

/// An init that ends its side of the gate without a word, as one that is killed does, but lives on until the
/// daemon-to-be has ended.
int stand_in_for_init() {
  constexpr int gate = 6;
  ::close(gate);
  ::waitpid(-1, nullptr, 0);
  return 0;
}

struct Verb {
  const char* name;
  void (*run)(Argument);
};
constexpr Verb verbs[] = {
    {"fds", fds},
    {"status", status},
    {"mounts", mounts},
    {"regain", regain},
    {"host", host},
    {"touch", touch},
    {"make", make},
    {"list", list},
    {"write", write_to},
    {"read", read_from},
    {"chmod", change_mode},
    {"stdin-mode", stdin_mode},
    {"node", node},
    {"escape", escape_by_descriptor},
    {"escape-move", escape_by_move},
    {"call", make_calls},
    {"x32", call_x32},
    {"32-bit", call_32_bit},
    {"push", push},
    {"become", become},
    {"link", link_of},
    {"namespaces", namespaces},
    {"thread", thread},
    {"init", attack_init},
    {"keyring", keyring},
    {"session", session},
    {"mask", mask},
    {"directory", directory},
    {"priority", priority},
    {"limit", limit},
    {"environment", environment},
    {"listen-pid", listen_pid},
    {"memory", memory},
    {"abstract", abstract},
    {"datagram", datagram},
    {"tcp-connect", tcp_connect},
    {"tcp-bind", tcp_bind},
    {"udp-bind", udp_bind},
    {"exit", leave},
    {"die", die},
    {"orphan", orphan},
    {"wait", wait_forever},
    {"stdin-read", stdin_read},
    {"cat", cat},
};

}  // namespace

int main(int argc, char** argv) {
  if (std::strcmp(argv[0], "jail-init") == 0) return stand_in_for_init();
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const std::size_t colon = word.find(':');
    const std::string name = word.substr(0, colon);
    bool known = false;
    for (const Verb& verb : verbs)
      if (name == verb.name) {
        known = true;
        verb.run(colon == std::string::npos ? "" : word.substr(colon + 1));
      }
    if (!known) {
      std::fprintf(stderr, "probe: no verb %s\n", name.c_str());
      return 64;
    }
  }
  return 0;
}
