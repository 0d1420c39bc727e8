#include "supervisor/log/ring.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <type_traits>

#include "supervisor/log/intake.h"

namespace jail::log {
namespace {

constexpr std::uint64_t magic = 0x676e69722d67686cULL;
constexpr std::uint64_t version = 1;
constexpr std::size_t page = 4096;
constexpr std::size_t region_limit = 16384;

constexpr std::size_t pages(std::size_t bytes) {
  return (bytes + page - 1) / page * page;
}
constexpr std::size_t head_bytes = pages(sizeof(RingMemory));
constexpr std::size_t region_bytes = pages(sizeof(RegionMemory));

static_assert(std::is_trivially_copyable_v<State>);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

// A record in a lane; its bytes follow.
struct Entry {
  std::uint32_t size;  // of all, a multiple of 8
  std::uint32_t length;
  std::uint64_t sequence;
  std::uint64_t time_us;
  std::uint64_t truncated;
  std::int32_t pid;
  std::uint8_t source;
  std::uint8_t filler;  // 1: no record, fills the lane to its end
};
static_assert(sizeof(Entry) % 8 == 0);
constexpr std::uint64_t entry_limit = sizeof(Entry) + record_limit;
static_assert(lane_bytes[0] > 2 * entry_limit && lane_bytes[1] > 2 * entry_limit);

// The entry at `at`, checked; a filler may be as small as 8 bytes, of which only size and length are read.
struct Look {
  bool good = false;
  bool filler = false;
  std::uint64_t size = 0;
  const char* entry = nullptr;
};

constexpr std::uint32_t filler_mark = 0xFFFFFFFFU;

Look look(const char* text, std::size_t lane, std::uint64_t at, std::uint64_t tail) {
  const std::uint64_t offset = at % lane_bytes[lane];
  std::uint32_t size = 0, length = 0;
  if (offset % 8 != 0) return {};
  std::memcpy(&size, text + offset, sizeof size);
  std::memcpy(&length, text + offset + sizeof size, sizeof length);
  if (size < 8 || size % 8 != 0 || size > tail - at || size > lane_bytes[lane] - offset) return {};
  if (length == filler_mark) return {true, true, size, nullptr};
  if (size < sizeof(Entry) || length > record_limit || length > size - sizeof(Entry)) return {};
  return {true, false, size, text + offset};
}

}  // namespace

std::string_view Region::name() const {
  return {memory_->name.data(), ::strnlen(memory_->name.data(), name_bytes)};
}

Region::Place Region::prepare(const Record& record) const {
  const std::size_t lane = severity_of(record) <= 4 ? 0 : 1;
  const std::size_t length = std::min(record.bytes.size(), record_limit);
  const std::uint64_t size = (sizeof(Entry) + length + 7) / 8 * 8;
  const std::uint64_t capacity = lane_bytes[lane];
  auto head = [&] { return std::min(state().cursor[0].lane[lane], state().cursor[1].lane[lane]); };
  if (head() == state().tail[lane] && head() != 0)  // empty: start again, on pages that are warm
    commit([&](State& s) { s.tail[lane] = s.cursor[0].lane[lane] = s.cursor[1].lane[lane] = 0; });
  std::uint64_t tail = state().tail[lane];
  const std::uint64_t rest = capacity - tail % capacity;
  const std::uint64_t fill = rest < size ? rest : 0;
  while (tail + fill + size - head() > capacity) drop_oldest(lane);
  if (fill != 0) {
    const std::array<std::uint32_t, 2> filler = {static_cast<std::uint32_t>(fill), filler_mark};
    std::memcpy(text(lane) + tail % capacity, filler.data(), sizeof filler);
    tail += fill;
  }
  Entry entry{};
  entry.size = static_cast<std::uint32_t>(size);
  entry.length = static_cast<std::uint32_t>(length);
  entry.sequence = state().sequence;
  entry.time_us = record.time_us;
  entry.truncated = record.truncated + (record.bytes.size() - length);
  entry.pid = record.pid;
  entry.source = static_cast<std::uint8_t>(record.source);
  char* to = text(lane) + tail % capacity;
  std::memcpy(to, &entry, sizeof entry);
  if (length != 0) std::memcpy(to + sizeof entry, record.bytes.data(), length);
  return {lane, tail + size};
}

void Region::advance(State& state, const Place& place, bool for_syslog) {
  ++state.sequence;
  state.tail[place.lane] = place.tail;
  if (!for_syslog) state.cursor[static_cast<std::size_t>(Sink::syslog)].lane = state.tail;
}

void Region::drop_oldest(std::size_t lane) const {
  const State& now = state();
  const std::uint64_t head = std::min(now.cursor[0].lane[lane], now.cursor[1].lane[lane]);
  const Look entry = look(text(lane), lane, head, now.tail[lane]);
  commit([&](State& s) {
    for (std::size_t sink = 0; sink < 2; ++sink) {
      if (!entry.good) {
        s.cursor[sink].lane[lane] = s.tail[lane];
        ++s.dropped[sink];
      } else if (s.cursor[sink].lane[lane] == head) {
        s.cursor[sink].lane[lane] += entry.size;
        if (!entry.filler) ++s.dropped[sink];
      }
    }
  });
}

bool Region::next(Position& at, Record& record) const {
  const State& now = state();
  std::array<Look, 2> found{};
  std::array<Entry, 2> entries{};
  for (std::size_t lane = 0; lane < 2; ++lane) {
    while (at.lane[lane] != now.tail[lane]) {
      found[lane] = look(text(lane), lane, at.lane[lane], now.tail[lane]);
      if (!found[lane].good) {
        at.lane[lane] = now.tail[lane];
      } else if (found[lane].filler) {
        at.lane[lane] += found[lane].size;
      } else {
        std::memcpy(&entries[lane], found[lane].entry, sizeof(Entry));
        break;
      }
    }
  }
  const bool first = at.lane[0] != now.tail[0], second = at.lane[1] != now.tail[1];
  if (!first && !second) return false;
  const std::size_t lane = !second || (first && entries[0].sequence < entries[1].sequence) ? 0 : 1;
  const Entry& entry = entries[lane];
  record.source = static_cast<Source>(std::min<std::uint8_t>(entry.source, 2));
  record.time_us = entry.time_us;
  record.pid = entry.pid;
  record.truncated = entry.truncated;
  record.bytes = {found[lane].entry + sizeof(Entry), entry.length};
  at.lane[lane] += found[lane].size;
  return true;
}

bool Region::pending(Sink sink) const {
  const State& now = state();
  const Position& cursor = now.cursor[static_cast<std::size_t>(sink)];
  return cursor.lane != now.tail || now.dropped[static_cast<std::size_t>(sink)] != 0;
}

bool Region::drained() const {
  const State& now = state();
  return !pending(Sink::file) && now.out.done == now.out.length;
}

bool Region::repair() const {
  const State& now = state();
  bool good =
      memory_->name.back() == '\0' && now.out.length <= outbox_bytes && now.out.done <= now.out.length;
  for (std::size_t lane = 0; lane < 2; ++lane) {
    good = good && now.tail[lane] % 8 == 0;
    for (const Position& cursor : now.cursor)
      good = good && cursor.lane[lane] <= now.tail[lane] &&
             now.tail[lane] - cursor.lane[lane] <= lane_bytes[lane];
  }
  for (const Partial& partial : now.partial)
    good = good && partial.buffer <= 1 && partial.length <= record_limit;
  if (good) return false;
  memory_->name.back() = '\0';
  memory_->states[0] = State{};
  memory_->states[0].dropped = {1, 1};  // at least
  memory_->active.store(0, std::memory_order_release);
  return true;
}

void Ring::Unmap::operator()(RingMemory* memory) const {
  ::munmap(memory, head_bytes);
}
void Ring::Unmap::operator()(RegionMemory* memory) const {
  ::munmap(memory, region_bytes);
}

Result<UniqueFd> Ring::make() {
  UniqueFd fd(::memfd_create("jail-log-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return fail_errno(Exit::host, errno, "make the memory of the log relay");
  if (::fchmod(fd.get(), 0600) != 0)
    return fail_errno(Exit::host, errno, "protect the memory of the log relay");
  // Allocated, not only sized: a page that cannot be had in the midst of recvmmsg would lose a datagram.
  if (::fallocate(fd.get(), 0, 0, static_cast<off_t>(head_bytes)) != 0)
    return fail_errno(Exit::host, errno, "allocate {} bytes for the log relay", head_bytes);
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0)
    return fail_errno(Exit::host, errno, "seal the memory of the log relay");
  return fd;
}

int Ring::owner(int fd) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(fd, F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return 0;
  return lock.l_pid;
}

Result<Ring> Ring::attach(int fd) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  while (::fcntl(fd, F_SETLKW, &lock) !=
         0)  // a POSIX lock: gone when its process is, whoever holds the descriptor
    if (errno != EINTR) return fail_errno(Exit::host, errno, "lock the ring");
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(Exit::host, errno, "stat of the ring");
  if (static_cast<std::size_t>(status.st_size) < head_bytes)
    return fail(Exit::internal, "the ring is too small");
  void* memory = ::mmap(nullptr, head_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (memory == MAP_FAILED) return fail_errno(Exit::host, errno, "map the ring");
  Ring ring(fd, static_cast<RingMemory*>(memory));
  for (std::size_t at = 0; at < head_bytes;
       at += page) {  // present and writable before the kernel writes there
    auto* byte = static_cast<volatile char*>(memory) + at;
    *byte = *byte;
  }
  const auto count = (static_cast<std::size_t>(status.st_size) - head_bytes) / region_bytes;
  for (std::size_t i = 0; i < std::min(count, region_limit); ++i) JAIL_CHECK(ring.map_next());
  ring.check();
  ring.recover();
  return ring;
}

Result<void> Ring::map_next() {
  const off_t offset = static_cast<off_t>(head_bytes + regions_.size() * region_bytes);
  void* memory = ::mmap(nullptr, region_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, offset);
  if (memory == MAP_FAILED) return fail_errno(Exit::host, errno, "map a region of the ring");
  regions_.emplace_back(static_cast<RegionMemory*>(memory));
  return {};
}

void Ring::check() {
  if (memory_->magic != magic || memory_->version != version) {
    std::memset(static_cast<void*>(memory_.get()), 0, head_bytes);
    for (const auto& region : regions_) region->used = 0;
    memory_->version = version;
    memory_->magic = magic;
  }
  for (std::uint32_t i = 0; i < regions_.size(); ++i)
    if (regions_[i]->used != 0) (void)at(i).repair();
}

void Ring::recover() {
  recover_outgoing(*this);
  recover_inbox(*this);
}

Result<Region> Ring::region(std::string_view name) {
  if (name.empty() || name.size() >= name_bytes)
    return fail(Exit::internal, "the name of a log region is too long");
  std::uint32_t free = static_cast<std::uint32_t>(regions_.size());
  for (std::uint32_t i = 0; i < regions_.size(); ++i) {
    if (regions_[i]->used != 0 && at(i).name() == name) return at(i);
    if (regions_[i]->used == 0) free = std::min(free, i);
  }
  if (free == regions_.size()) {
    if (free >= region_limit) return fail(Exit::host, "the log relay has {} jails already", region_limit);
    const auto end = static_cast<off_t>(head_bytes + (regions_.size() + 1) * region_bytes);
    if (::ftruncate(fd_, end) != 0) return fail_errno(Exit::host, errno, "make the ring larger");
    JAIL_CHECK(map_next());
  }
  RegionMemory& memory = *regions_[free];
  memory.name.fill('\0');
  std::copy(name.begin(), name.end(), memory.name.begin());
  memory.states[0] = State{};
  memory.states[0].sent = memory_->outgoing.id;
  memory.states[0].batch = memory_->inbox.batch;
  memory.active.store(0, std::memory_order_release);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  memory.used = 1;
  return at(free);
}

void Ring::release(Region region) const {
  region.memory().used = 0;
}

}  // namespace jail::log
