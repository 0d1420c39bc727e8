#include "jailer/cli/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "supervisor/base/io.h"

namespace jail::cli {
namespace {

constexpr int last_words_ms = 100;  ///< so long we wait for output when who made it has ended

constexpr std::array caught = {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH};

sigset_t caught_set() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : caught) ::sigaddset(&set, signal);
  return set;
}

bool in_foreground(int terminal) {
  return ::tcgetpgrp(terminal) == ::getpgrp();
}

}  // namespace

Result<std::optional<Terminal>> Terminal::make() {
  Terminal terminal;
  int ours = -1;
  for (const int fd : {STDERR_FILENO, STDOUT_FILENO, STDIN_FILENO})
    if (::isatty(fd) == 1) ours = terminal.screen_ = fd;
  if (ours < 0) return std::optional<Terminal>();
  if (::isatty(STDOUT_FILENO) == 1) terminal.screen_ = STDOUT_FILENO;

  terminal.master_.reset(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!terminal.master_ || ::grantpt(terminal.master_.get()) != 0 || ::unlockpt(terminal.master_.get()) != 0)
    return fail_errno(Exit::host, errno, "cannot make a pseudoterminal");
  // By descriptor: no name of ours is looked up.
  terminal.slave_.reset(::ioctl(terminal.master_.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!terminal.slave_) return fail_errno(Exit::host, errno, "cannot open a pseudoterminal");
  ::fcntl(terminal.master_.get(), F_SETFL, O_RDWR | O_NONBLOCK);

  termios settings{};
  if (::tcgetattr(ours, &settings) != 0) return fail_errno(Exit::io, errno, "the terminal");
  terminal.reads_ = ::isatty(STDIN_FILENO) == 1 && in_foreground(STDIN_FILENO);
  termios its = settings;
  if (!terminal.reads_) its.c_oflag &= ~static_cast<tcflag_t>(OPOST);  // ours does it already
  ::tcsetattr(terminal.slave_.get(), TCSANOW, &its);
  terminal.take_window_size();
  if (terminal.reads_) {
    termios raw = settings;
    ::cfmakeraw(&raw);
    if (::tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) != 0) return fail_errno(Exit::io, errno, "the terminal");
    terminal.before_ = settings;
  }
  return std::optional<Terminal>(std::move(terminal));
}

Terminal::~Terminal() {
  if (master_ && before_) ::tcsetattr(STDIN_FILENO, TCSADRAIN, &*before_);
}

int Terminal::standard(int fd) const {
  return ::isatty(fd) == 1 ? slave_.get() : fd;
}

void Terminal::started() {
  slave_.reset();
}

void Terminal::take_window_size() const {
  winsize size{};
  if (::ioctl(screen_, TIOCGWINSZ, &size) == 0) ::ioctl(master_.get(), TIOCSWINSZ, &size);
}

bool Terminal::show() {
  std::array<char, 16384> bytes{};
  const ssize_t got = ::read(master_.get(), bytes.data(), bytes.size());
  if (got < 0) return errno == EAGAIN || errno == EINTR;  // EIO: nobody has the other end
  return got > 0 && write_all(screen_, {bytes.data(), static_cast<std::size_t>(got)}, "the terminal");
}

bool Terminal::type() {
  if (typed_.empty()) {
    std::array<char, 1024> bytes{};
    const ssize_t got = ::read(STDIN_FILENO, bytes.data(), bytes.size());
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    typed_.assign(bytes.data(), static_cast<std::size_t>(got));
  }
  return hand_on();
}

bool Terminal::hand_on() {
  const ssize_t taken = ::write(master_.get(), typed_.data(), typed_.size());
  if (taken > 0) typed_.erase(0, static_cast<std::size_t>(taken));
  return taken >= 0 || errno == EAGAIN || errno == EINTR;
}

Result<UniqueFd> catch_signals() {
  const sigset_t set = caught_set();
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return fail_errno(Exit::host, errno, "sigprocmask");
  UniqueFd signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals) return fail_errno(Exit::host, errno, "signalfd");
  return signals;
}

void release_signals() {
  const sigset_t set = caught_set();
  ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

namespace {

void hand_on_signals(int process, int signals, Keyboard keyboard, const Terminal* terminal) {
  signalfd_siginfo info{};
  while (::read(signals, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    const auto number = static_cast<int>(info.ssi_signo);
    const bool typed = info.ssi_code == SI_KERNEL;  // by the terminal, to all of its foreground
    if (number == SIGWINCH && terminal != nullptr) terminal->take_window_size();
    if (number == SIGWINCH || (typed && keyboard == Keyboard::shared)) continue;
    ::syscall(SYS_pidfd_send_signal, process, number, nullptr, 0);
  }
}

Result<int> status_of(int process) {
  siginfo_t info{};
  int done;
  do done = ::waitid(P_PIDFD, static_cast<id_t>(process), &info, WEXITED);
  while (done != 0 && errno == EINTR);
  if (done != 0) return fail_errno(Exit::internal, errno, "waitid");
  return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

void drain(Terminal& terminal) {
  pollfd output{terminal.fd(), POLLIN, 0};
  while (::poll(&output, 1, last_words_ms) > 0 && terminal.show()) {
  }
}

}  // namespace

Result<int> wait_for_end(int process, int signals, Keyboard keyboard, Terminal* terminal) {
  bool shows = terminal != nullptr;
  bool types = shows && terminal->reads();
  while (true) {
    std::array<pollfd, 5> watched = {{{process, POLLIN, 0},
                                      {signals, POLLIN, 0},
                                      {shows ? terminal->fd() : -1, POLLIN, 0},
                                      {types && !terminal->full() ? STDIN_FILENO : -1, POLLIN, 0},
                                      {types && terminal->full() ? terminal->fd() : -1, POLLOUT, 0}}};
    if (::poll(watched.data(), watched.size(), -1) < 0 && errno != EINTR)
      return fail_errno(Exit::io, errno, "cannot wait for the command");
    if (watched[1].revents != 0) hand_on_signals(process, signals, keyboard, terminal);
    if (watched[2].revents != 0) shows = terminal->show();
    if (watched[3].revents != 0 || watched[4].revents != 0) types = terminal->type();
    if (watched[0].revents == 0) continue;
    if (shows) drain(*terminal);
    return status_of(process);
  }
}

}  // namespace jail::cli
