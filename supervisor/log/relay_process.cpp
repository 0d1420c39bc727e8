#include "supervisor/log/relay_process.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "supervisor/log/intake.h"

namespace jail::log {
namespace {

constexpr std::uint64_t control_key = ~0ULL;
constexpr std::uint64_t second_us = 1'000'000;
constexpr std::uint64_t retry_us = 100'000;          // a sink that took nothing
constexpr std::uint64_t host_retry_us = 10'000;      // a host's syslog whose queue is full
constexpr std::uint64_t partial_us = 2 * second_us;  // a line without an end is a record then
constexpr int events_limit = 64;
constexpr int drain_turns = 512;  // at the end of a jail: more than its queue and pipes can hold
constexpr std::array sources = {Source::syslog, Source::out, Source::err};

std::uint64_t key(const Region& region, Source source) {
  return std::uint64_t{region.number()} * 4 + static_cast<std::uint64_t>(source);
}

}  // namespace

RelayProcess::RelayProcess(UniqueFd control, Ring ring)
    : control_(std::move(control)), ring_(std::move(ring)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}

void RelayProcess::say(Type type, std::string_view name, std::uint64_t value, std::string_view text) {
  Message message;
  message.type = type;
  message.value = value;
  message.set_name(name);
  message.set_text(text);
  if (send_message(control_.get(), message) == Transfer::closed) closed_ = true;
}

RelayProcess::Jail* RelayProcess::find(const std::string& name) {
  for (auto& [number, jail] : jails_)
    if (jail->region.name() == name) return jail.get();
  return nullptr;
}

int RelayProcess::run() {
  epoll_event control{};
  control.events = EPOLLIN;
  control.data.u64 = control_key;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, control_.get(), &control) != 0)
    return static_cast<int>(Exit::host);
  say(Type::hello, {});
  std::array<epoll_event, events_limit> events;
  while (!closed_) {
    const int count = ::epoll_wait(epoll_.get(), events.data(), events_limit, timeout());
    if (count < 0 && errno != EINTR) return static_cast<int>(Exit::host);
    for (int i = 0; i < count; ++i) {
      const std::uint64_t from = events[static_cast<std::size_t>(i)].data.u64;
      if (from == control_key) {
        on_control();
        continue;
      }
      const auto jail = jails_.find(static_cast<std::uint32_t>(from / 4));
      if (jail != jails_.end()) (void)receive(*jail->second, static_cast<Source>(from % 4));
    }
    flush_all();
  }
  finish();
  return 0;
}

int RelayProcess::timeout() const {
  if (at_once_) return 0;
  const std::uint64_t now = now_us();
  std::uint64_t next = later_ ? now + retry_us : 0;
  if (later_ && host_again_us_ > now) next = std::min(next, host_again_us_);
  if (partials_us_ != 0) next = next == 0 ? partials_us_ : std::min(next, partials_us_);
  if (next == 0) return -1;
  return static_cast<int>(std::min<std::uint64_t>((std::max(next, now) - now) / 1000 + 1, 1000));
}

void RelayProcess::watch(Jail& jail, Source source, UniqueFd fd) {
  if (!fd) return;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = key(jail.region, source);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0)
    say(Type::note, jail.region.name(), 0,
        std::string("the relay cannot watch a descriptor: ") + ::strerrordesc_np(errno));
  jail.sources[static_cast<std::size_t>(source)] = std::move(fd);
}

// jaild holds the same open file: closing alone would leave it watched.
void RelayProcess::unwatch(Jail& jail, Source source) {
  UniqueFd& fd = jail.sources[static_cast<std::size_t>(source)];
  if (!fd) return;
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd.get(), nullptr);
  fd.reset();
}

// One batch. False: there was nothing.
bool RelayProcess::receive(Jail& jail, Source source) {
  const int fd = jail.sources[static_cast<std::size_t>(source)].get();
  if (fd < 0) return false;
  const Intake got = source == Source::syslog
                         ? receive_datagrams(ring_, jail.region, fd, syslog_wanted_)
                         : receive_stream(ring_, jail.region, fd, source, syslog_wanted_);
  jail.busy = true;
  if (source != Source::syslog && partials_us_ == 0) partials_us_ = now_us() + second_us;
  if (got.ended) {
    flush_partial(jail.region, source, syslog_wanted_, now_us(), 0);
    unwatch(jail, source);
  }
  return got.records != 0;
}

void RelayProcess::drain(Jail& jail) {
  for (const Source source : sources) {
    for (int turn = 0; turn < drain_turns && receive(jail, source); ++turn) flush(jail, now_us());
    if (source != Source::syslog) flush_partial(jail.region, source, syslog_wanted_, now_us(), 0);
    unwatch(jail, source);
  }
}

void RelayProcess::on_control() {
  for (int i = 0; i < events_limit && !closed_; ++i) {
    Message message;
    Fds fds;
    const Transfer got = receive_message(control_.get(), message, &fds);
    if (got == Transfer::again) return;
    if (got == Transfer::closed) {
      closed_ = true;
      return;
    }
    handle(message, fds);
  }
}

void RelayProcess::handle(const Message& message, Fds& fds) {
  Jail* jail = nullptr;
  switch (message.type) {
    case Type::add:
      return add(message, fds);
    case Type::host:
      return set_host(message, fds);
    case Type::lost:
      return lose(message.get_name(), message.value);
    case Type::ping:
      return say(Type::pong, {}, message.value);
    case Type::file:
      if ((jail = find(message.get_name())) == nullptr || !fds[0]) return;
      jail->file.open(std::move(fds[0]), jail->region);
      jail->busy = true;
      jail->asked_us = jail->file_again_us = 0;
      return;
    case Type::remove:
      if ((jail = find(message.get_name())) != nullptr) {
        remove(*jail);
      } else {
        say(Type::gone, message.get_name());
      }
      return;
    default:
      return;  // our own words
  }
}

void RelayProcess::add(const Message& message, Fds& fds) {
  const std::string name = message.get_name();
  auto region = ring_.region(name);
  if (!region) return say(Type::note, name, 0, region.error().message);
  auto& slot = jails_[region->number()];
  if (slot) {
    drain(*slot);
  } else {
    slot = std::make_unique<Jail>(*region);
  }
  Jail& jail = *slot;
  jail.removing = false;
  std::size_t next = 0;
  auto take = [&](std::uint64_t bit) {
    return (message.value & bit) != 0 && next < fd_limit ? std::move(fds[next++]) : UniqueFd();
  };
  watch(jail, Source::syslog, take(has_syslog));
  watch(jail, Source::out, take(has_stdout));
  watch(jail, Source::err, take(has_stderr));
  UniqueFd file = take(has_file);
  if (file) jail.file.open(std::move(file), jail.region);
  jail.file_again_us = jail.asked_us = 0;
  jail.busy = true;
}

void RelayProcess::set_host(const Message& message, Fds& fds) {
  host_asked_ = false;
  syslog_wanted_ = fds[0].valid() || message.value != 0;
  host_.open(std::move(fds[0]));
  host_again_us_ = 0;
  for (auto& [number, jail] : jails_) jail->busy = true;
}

void RelayProcess::remove(Jail& jail) {
  drain(jail);
  jail.removing = true;
  jail.busy = true;
}

void RelayProcess::lose(const std::string& name, std::uint64_t count) {
  Jail* jail = find(name);
  if (jail == nullptr || count == 0) return;
  jail->region.commit([&](State& state) {
    for (std::uint64_t& dropped : state.dropped) dropped += count;
  });
  say(Type::counted, name, count);
  jail->busy = true;
}

void RelayProcess::flush_file(Jail& jail, std::uint64_t now) {
  if (now < jail.file_again_us) {
    jail.busy = later_ = true;  // busy: no new record may come to make it so, and the disk has room again
    return;
  }
  switch (jail.file.flush(jail.region)) {
    case FileSink::Status::done:
      return;
    case FileSink::Status::more:
      at_once_ = true;
      break;
    case FileSink::Status::blocked:
      jail.file_again_us = now + retry_us;
      later_ = true;
      break;
    case FileSink::Status::removed:
      if (now > jail.asked_us + second_us) {
        say(Type::reopen, jail.region.name());
        jail.asked_us = now;
      }
      later_ = true;
      break;
    case FileSink::Status::none:
      return;  // busy again when it comes
  }
  jail.busy = true;
}

void RelayProcess::flush_syslog(Jail& jail, std::uint64_t now) {
  if (!jail.region.pending(Sink::syslog)) return;
  if (!syslog_wanted_) {
    jail.region.commit([](State& state) {
      state.cursor[static_cast<std::size_t>(Sink::syslog)].lane = state.tail;
      state.dropped[static_cast<std::size_t>(Sink::syslog)] = 0;
    });
    return;
  }
  if (now < host_again_us_) {
    jail.busy = later_ = true;
    return;
  }
  switch (host_.flush(ring_, jail.region)) {
    case SyslogSink::Status::done:
      return;
    case SyslogSink::Status::more:
      at_once_ = true;
      break;
    case SyslogSink::Status::blocked:
      host_again_us_ = now + host_retry_us;
      later_ = true;
      break;
    case SyslogSink::Status::gone:
      if (!host_asked_) say(Type::need_host, {});
      host_asked_ = true;
      return;
    case SyslogSink::Status::none:
      return;  // busy again when it comes
  }
  jail.busy = true;
}

void RelayProcess::flush(Jail& jail, std::uint64_t now) {
  jail.busy = false;
  flush_file(jail, now);
  flush_syslog(jail, now);
}

void RelayProcess::flush_partials(std::uint64_t now) {
  bool left = false;
  for (auto& [number, jail] : jails_) {
    for (const Source source : {Source::out, Source::err}) {
      flush_partial(jail->region, source, syslog_wanted_, now, partial_us);
      const Partial& partial = jail->region.state().partial[source == Source::out ? 0 : 1];
      left = left || partial.length != 0 || partial.truncated != 0;
    }
    if (jail->region.pending(Sink::file)) jail->busy = true;
  }
  partials_us_ = left ? now + second_us : 0;
}

void RelayProcess::flush_all() {
  at_once_ = later_ = false;
  const std::uint64_t now = now_us();
  if (partials_us_ != 0 && now >= partials_us_) flush_partials(now);
  for (auto at = jails_.begin(); at != jails_.end();) {
    Jail& jail = *at->second;
    if (jail.busy) flush(jail, now);
    const bool ended =
        jail.removing && jail.region.drained() && !(host_.valid() && jail.region.pending(Sink::syslog));
    if (!ended) {
      ++at;
      continue;
    }
    say(Type::gone, jail.region.name());
    ring_.release(jail.region);
    at = jails_.erase(at);
  }
}

// jaild is gone. Another relay may come and take the ring at any instant; if none does, this is the last
// chance.
void RelayProcess::finish() {
  for (auto& [number, jail] : jails_) {
    drain(*jail);
    for (int turn = 0; turn < drain_turns && jail->busy && at_once_; ++turn) {
      at_once_ = false;
      flush(*jail, now_us());
    }
  }
}

}  // namespace jail::log
