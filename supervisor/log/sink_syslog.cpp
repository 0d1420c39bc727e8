#include "supervisor/log/sink_syslog.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "supervisor/log/intake.h"

namespace jail::log {
namespace {

constexpr auto sink = static_cast<std::size_t>(Sink::syslog);

void put(Outgoing& outgoing, std::size_t i, std::size_t from, std::size_t length) {
  outgoing.vectors[i] = {outgoing.text.data() + from, length};
  outgoing.headers[i] = mmsghdr{};
  outgoing.headers[i].msg_hdr.msg_iov = &outgoing.vectors[i];
  outgoing.headers[i].msg_hdr.msg_iovlen = 1;
}

// A message that the host's syslog refuses for itself (its size) must not stand before all others for ever.
void skip_one(Outgoing& outgoing, Region region, std::size_t i) {
  region.commit([&](State& state) {
    state.cursor[sink] = outgoing.after[i];
    ++state.dropped[sink];
  });
}

}  // namespace

bool SyslogSink::prepare(Ring& ring, Region region) {
  Outgoing& outgoing = ring.outgoing();
  Position at = region.state().cursor[sink];
  const std::uint64_t dropped = region.state().dropped[sink];
  std::size_t count = 0, used = 0;
  text_.clear();
  auto take = [&] {
    put(outgoing, count, used, text_.size() - used);
    outgoing.after[count++] = at;
    used = text_.size();
  };
  if (dropped != 0) {
    append_drop_datagram(text_, region.name(), now_us(), dropped, "the host's syslog did not take them");
    take();
  }
  Record record;
  while (count < batch_size && text_.size() + line_limit <= outbox_bytes && region.next(at, record)) {
    append_datagram(text_, region.name(), record);
    take();
  }
  if (count == 0) return false;
  std::memcpy(outgoing.text.data(), text_.data(), text_.size());
  outgoing.region = region.number();
  outgoing.reported = dropped;
  ++outgoing.id;
  outgoing.count.store(static_cast<std::uint32_t>(count), std::memory_order_release);
  return true;
}

void account_outgoing(Ring& ring, Region region) {
  const Outgoing& outgoing = ring.outgoing();
  const std::size_t count = outgoing.count.load(std::memory_order_acquire);
  std::size_t sent = 0;  // the kernel wrote a length behind each one, as in recvmmsg
  while (sent < count && outgoing.headers[sent].msg_len != 0) ++sent;
  if (sent == 0 || region.state().sent == outgoing.id) return;
  region.commit([&](State& state) {
    state.cursor[sink] = outgoing.after[sent - 1];
    state.dropped[sink] -= std::min(state.dropped[sink], outgoing.reported);
    state.sent = outgoing.id;
  });
}

SyslogSink::Status SyslogSink::flush(Ring& ring, Region region) {
  if (!fd_) return Status::none;
  if (!region.pending(Sink::syslog) || !prepare(ring, region)) return Status::done;
  Outgoing& outgoing = ring.outgoing();
  const std::size_t count = outgoing.count.load(std::memory_order_relaxed);
  int sent = ::sendmmsg(fd_.get(), outgoing.headers.data(), static_cast<unsigned>(count),
                        MSG_DONTWAIT | MSG_NOSIGNAL);
  const int error = sent < 0 ? errno : 0;
  account_outgoing(ring, region);
  outgoing.count.store(0, std::memory_order_release);
  if (sent == static_cast<int>(count)) return region.pending(Sink::syslog) ? Status::more : Status::done;
  if (sent > 0) return Status::more;  // the next call learns why
  if (error == EMSGSIZE) {
    skip_one(outgoing, region, 0);
    return Status::more;
  }
  if (error == EAGAIN || error == ENOBUFS || error == ENOMEM || error == EINTR) return Status::blocked;
  fd_.reset();
  return Status::gone;
}

}  // namespace jail::log
