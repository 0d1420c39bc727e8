#include "supervisor/log/intake.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "supervisor/log/sink_syslog.h"

namespace jail::log {
namespace {

// Headers that say "nothing came", so that what the kernel writes can be told from what it did not.
void prepare_headers(Inbox& inbox) {
  for (std::size_t i = 0; i < batch_size; ++i) {
    inbox.vectors[i] = {inbox.data[i].data(), record_limit};
    inbox.control[i].fill('\0');
    mmsghdr& header = inbox.headers[i];
    header = mmsghdr{};
    header.msg_hdr.msg_iov = &inbox.vectors[i];
    header.msg_hdr.msg_iovlen = 1;
    header.msg_hdr.msg_control = inbox.control[i].data();
    header.msg_hdr.msg_controllen = credentials_bytes;
  }
}

// The kernel's pid of slot `i`; false when no datagram came into it.
bool came(const Inbox& inbox, std::size_t i, std::int32_t& pid) {
  cmsghdr header{};
  std::memcpy(&header, inbox.control[i].data(), sizeof header);
  pid = 0;
  if (header.cmsg_level == SOL_SOCKET && header.cmsg_type == SCM_CREDENTIALS &&
      header.cmsg_len == CMSG_LEN(sizeof(ucred))) {
    ucred credentials{};
    std::memcpy(&credentials, inbox.control[i].data() + CMSG_LEN(0), sizeof credentials);
    pid = credentials.pid;
    return true;
  }
  return inbox.headers[i].msg_len != 0;
}

std::uint64_t take_datagrams(const Inbox& inbox, Region region, std::size_t from, std::size_t to,
                             bool for_syslog) {
  for (std::size_t i = from; i < to; ++i) {
    Record record;
    if (!came(inbox, i, record.pid)) return i - from;
    const std::size_t length = inbox.headers[i].msg_len;  // of the datagram: MSG_TRUNC was asked for
    const std::size_t kept = std::min(length, record_limit);
    record.time_us = inbox.time_us;
    record.truncated = length - kept;
    record.bytes = {inbox.data[i].data(), kept};
    region.append(record, for_syslog, [&](State& state) {
      state.batch = inbox.batch;
      state.taken = i + 1;
    });
  }
  return to - from;
}

// Adds bytes without an end to the line that stands.
void append_piece(Region region, Source source, std::string_view piece, std::uint64_t time_us,
                  std::uint64_t batch, std::uint64_t taken) {
  const std::size_t pipe = source == Source::out ? 0 : 1;
  const Partial before = region.state().partial[pipe];
  const std::size_t room = record_limit - before.length;
  const std::size_t kept = std::min(room, piece.size());
  // Behind the committed length: not part of the line until the commit.
  std::memcpy(region.memory().partial[pipe][before.buffer].data() + before.length, piece.data(), kept);
  region.commit([&](State& state) {
    Partial& partial = state.partial[pipe];
    if (partial.length == 0 && partial.truncated == 0) partial.since_us = time_us;
    partial.length += static_cast<std::uint32_t>(kept);
    partial.truncated += piece.size() - kept;
    state.batch = batch;
    state.taken = taken;
  });
}

void append_line_record(Region region, Source source, std::string_view piece, bool for_syslog,
                        std::uint64_t time_us, std::uint64_t batch, std::uint64_t taken) {
  const std::size_t pipe = source == Source::out ? 0 : 1;
  const Partial before = region.state().partial[pipe];
  Record record;
  record.source = source;
  record.time_us = time_us;
  if (before.length == 0 && before.truncated == 0) {
    const std::size_t kept = std::min(piece.size(), record_limit);
    record.bytes = piece.substr(0, kept);
    record.truncated = piece.size() - kept;
  } else {
    char* line = region.memory().partial[pipe][before.buffer].data();
    const std::size_t kept = std::min(record_limit - before.length, piece.size());
    if (kept != 0) std::memcpy(line + before.length, piece.data(), kept);
    record.bytes = {line, before.length + kept};
    record.truncated = before.truncated + (piece.size() - kept);
  }
  region.append(record, for_syslog, [&](State& state) {
    // The other buffer: this one is what a relay after us would read if the commit did not happen.
    state.partial[pipe] = Partial{before.buffer ^ 1U, 0, 0, 0};
    state.batch = batch;
    state.taken = taken;
  });
}

std::uint64_t take_stream(const Inbox& inbox, Region region, Source source, std::size_t from,
                          std::size_t length, bool for_syslog) {
  std::uint64_t records = 0;
  std::string_view rest(inbox.stream.data() + from, length - from);
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) {
      append_piece(region, source, rest, inbox.time_us, inbox.batch, length);
      break;
    }
    from += end + 1;
    append_line_record(region, source, rest.substr(0, end), for_syslog, inbox.time_us, inbox.batch, from);
    rest.remove_prefix(end + 1);
    ++records;
  }
  return records;
}

void begin(Inbox& inbox, Region region, Inbox::Kind kind) {
  inbox.region = region.number();
  inbox.time_us = now_us();
  ++inbox.batch;
  inbox.kind.store(kind, std::memory_order_release);
}

void end(Inbox& inbox) {
  inbox.kind.store(Inbox::idle, std::memory_order_release);
}

}  // namespace

std::uint64_t now_us() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000 + static_cast<std::uint64_t>(now.tv_nsec) / 1000;
}

Intake receive_datagrams(Ring& ring, Region region, int fd, bool for_syslog) {
  Inbox& inbox = ring.inbox();
  prepare_headers(inbox);
  begin(inbox, region, Inbox::datagrams);
  const int count =
      ::recvmmsg(fd, inbox.headers.data(), batch_size, MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC, nullptr);
  Intake result;
  if (count > 0)
    result.records = take_datagrams(inbox, region, 0, static_cast<std::size_t>(count), for_syslog);
  end(inbox);
  return result;
}

Intake receive_stream(Ring& ring, Region region, int fd, Source source, bool for_syslog) {
  Inbox& inbox = ring.inbox();
  begin(inbox, region, source == Source::out ? Inbox::out : Inbox::err);
  const ssize_t count = ::read(fd, inbox.stream.data(), stream_bytes);
  Intake result;
  if (count > 0) {
    const auto length = static_cast<std::size_t>(count);
    result.records = take_stream(inbox, region, source, 0, length, for_syslog);
    end(inbox);
    std::memset(inbox.stream.data(), 0, length);
  } else {
    end(inbox);
    result.ended = count == 0 || (errno != EAGAIN && errno != EINTR);
  }
  return result;
}

void flush_partial(Region region, Source source, bool for_syslog, std::uint64_t now,
                   std::uint64_t older_than_us) {
  const State& state = region.state();
  const Partial& partial = state.partial[source == Source::out ? 0 : 1];
  if (partial.length == 0 && partial.truncated == 0) return;
  if (now - std::min(now, partial.since_us) < older_than_us) return;
  append_line_record(region, source, {}, for_syslog, now, state.batch, state.taken);
}

void recover_inbox(Ring& ring) {
  Inbox& inbox = ring.inbox();
  const std::uint32_t kind = inbox.kind.load(std::memory_order_acquire);
  const bool known = inbox.region < ring.size() && ring.at(inbox.region).memory().used != 0;
  if (kind != Inbox::idle && known) {
    const Region region = ring.at(inbox.region);
    const std::uint64_t taken = region.state().batch == inbox.batch ? region.state().taken : 0;
    if (kind == Inbox::datagrams && taken <= batch_size) {
      (void)take_datagrams(inbox, region, taken, batch_size, true);
    } else if (kind != Inbox::datagrams) {
      // The length of what was read is not known; the memory behind it is zero. (NULs at its very end are
      // lost.)
      std::size_t length = stream_bytes;
      while (length != 0 && inbox.stream[length - 1] == '\0') --length;
      if (taken < length)
        (void)take_stream(inbox, region, kind == Inbox::out ? Source::out : Source::err, taken, length, true);
    }
  }
  end(inbox);
  inbox.stream.fill('\0');
}

void recover_outgoing(Ring& ring) {
  Outgoing& outgoing = ring.outgoing();
  const std::uint32_t count = outgoing.count.load(std::memory_order_acquire);
  if (count != 0 && count <= batch_size && outgoing.region < ring.size() &&
      ring.at(outgoing.region).memory().used != 0)
    account_outgoing(ring, ring.at(outgoing.region));
  outgoing.count.store(0, std::memory_order_release);
}

}  // namespace jail::log
