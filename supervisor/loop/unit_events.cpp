// A unit: what the process says, and its end.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>

#include "supervisor/base/quote.h"
#include "supervisor/loop/unit.h"
#include "supervisor/sandbox/record.h"

namespace jail::loop {
namespace {

using service::Event;
using service::State;

constexpr int notify_batch = 64;  ///< so that one service cannot keep the loop for itself

}  // namespace

void Unit::watch_process() {
  if (report_) {
    auto watched = house_.loop.watch(report_.get(), EPOLLIN, [this](std::uint32_t) { on_report(); });
    if (watched) report_watch_ = *watched;
  }
  auto watched = house_.loop.watch(init_.get(), EPOLLIN, [this](std::uint32_t) { on_init_end(); });
  if (watched) {
    init_watch_ = *watched;
    return;
  }
  house_.log.error("{}: {}", name_, watched.error().message);
  kill_all();  // what cannot be watched must not run
}

void Unit::find_network() {
  if (auto network = open_foreign_network(init_pid_)) network_ = std::move(*network);
}

void Unit::watch_notify() {
  if (notify_watch_ != 0) return;
  auto watched = house_.loop.watch(notify_.get(), EPOLLIN, [this](std::uint32_t) { on_notify(); });
  if (watched)
    notify_watch_ = *watched;
  else
    house_.log.error("{}: {}", name_, watched.error().message);
}

// ---- the report channel
// -------------------------------------------------------------------------------------

void Unit::on_report() {
  while (report_ && next_report()) {
  }
}

/// False when there is no more for now.
bool Unit::next_report() {
  // An end is written down before it leaves the queue: a jaild killed in between leaves it to the next.
  sandbox::Record record;
  const ssize_t size = ::recv(report_.get(), &record, sizeof record, MSG_DONTWAIT | MSG_PEEK);
  if (size == static_cast<ssize_t>(sizeof record) && record.kind == sandbox::Record::exited) {
    on_notify();  // what it said before it ended comes first
    const bool oom = WIFSIGNALED(record.status) && cgroup_.oom_kills() > oom_kills_;
    dispatch({Event::Kind::exited, 0, record.status, oom ? "out of memory" : ""});
    house_.save();
    if (!report_) return false;
  }
  auto next = sandbox::read_report(report_.get());
  if (!next) {
    house_.loop.forget(report_watch_);  // the end of the stream: the init is about to go
    return false;
  }
  if (!*next) return false;
  sandbox::Report& report = **next;
  switch (report.kind) {
    case sandbox::Report::Kind::failed:
      dispatch({Event::Kind::setup_failed, 0, 0,
                fmt::format("{}: {}", report.step, ::strerrordesc_np(report.error))});
      break;
    case sandbox::Report::Kind::running:
      main_ = std::move(report.daemon);
      if (main_) house_.hold(held("main"), main_.get());
      find_network();
      dispatch({Event::Kind::running, report.pid, 0, {}});
      break;
    case sandbox::Report::Kind::exited:
      break;  // dealt with above
  }
  return true;
}

// ---- notify
// ------------------------------------------------------------------------------------------------

void Unit::on_notify() {
  for (int i = 0; i < notify_batch && notify_; ++i) {
    const auto datagram = peek_notify(notify_.get());
    if (!datagram) return;
    if (is_ours(*datagram)) {
      apply_notify(*datagram);
      house_.save();
    } else if (strangers_++ % 1000 == 0) {
      house_.log.warn("{}: a notify message of pid {} (uid {}) is not the service's: ignored", name_,
                      datagram->pid, datagram->uid);
    }
    consume_notify(notify_.get());
  }
}

bool Unit::is_ours(const NotifyDatagram& datagram) const {
  if (datagram.cut || datagram.pid <= 0 || pid_namespace_.empty()) return false;
  if (datagram.pid == machine_.snapshot().pid) return true;
  const std::string its = pid_namespace(datagram.pid);
  // One that has ended already cannot be asked; only root and the jail reach the socket.
  return its.empty() ? datagram.uid == spec_.credentials.uid || datagram.uid == 0 : its == pid_namespace_;
}

void Unit::apply_notify(const NotifyDatagram& datagram) {
  const NotifyMessage& message = datagram.message;
  // The text is not believed: the sender is the new main process, and says so of itself.
  if (message.main_pid && datagram.pid != machine_.snapshot().pid &&
      own_pid(datagram.pid) == *message.main_pid) {
    UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, datagram.pid, 0)));
    if (process && pid_namespace(datagram.pid) == pid_namespace_) {
      main_ = std::move(process);
      house_.hold(held("main"), main_.get());
      dispatch({Event::Kind::main_changed, datagram.pid, 0, {}});
    }
  }
  if (message.status) dispatch({Event::Kind::notify_status, 0, 0, escape(*message.status)});
  if (message.reloading) dispatch({Event::Kind::notify_reloading, 0, 0, {}});
  if (message.stopping) dispatch({Event::Kind::notify_stopping, 0, 0, {}});
  if (message.ready) dispatch({Event::Kind::notify_ready, 0, 0, {}});
}

// ---- the end
// -----------------------------------------------------------------------------------------------

void Unit::on_init_end() {
  on_notify();
  on_report();
  const std::string end = init_end();
  close_process();
  dispatch({Event::Kind::gone, 0, 0, end});
}

std::string Unit::init_end() const {
  siginfo_t info{};
  std::optional<int> status;
  if (::waitid(P_PIDFD, static_cast<id_t>(init_.get()), &info, WEXITED | WNOHANG) == 0) {
    if (info.si_pid != 0) status = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
  } else {
    status = house_.reaped(init_pid_);
  }
  if (!status) return "its end was not seen";
  // The kernel kills all of the cgroup then, its init too (memory.oom.group).
  if (WIFSIGNALED(*status) && cgroup_.oom_kills() > oom_kills_)
    return service::describe_exit(*status) + ", out of memory (limits.memory)";
  return WIFEXITED(*status) ? "ended without a word of its init"
                            : "its init was " + service::describe_exit(*status);
}

void Unit::close_process() {
  house_.loop.forget(init_watch_);
  house_.loop.forget(report_watch_);
  for (auto [what, fd] : {std::pair("report", &report_), {"main", &main_}, {"init", &init_}}) {
    if (!*fd) continue;
    house_.release(held(what));
    fd->reset();
  }
  network_.reset();
  init_pid_ = 0;
  pid_namespace_.clear();
  state_json_.clear();
}

}  // namespace jail::loop
