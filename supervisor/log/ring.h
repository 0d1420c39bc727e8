// What the relay has received and not yet written, in memory that outlives it: a memfd that jaild makes and
// the keeper holds.
//
// The rule of this file: SIGKILL may come between any two instructions, and the next relay must go on with
// nothing lost and nothing doubled. (The machine going down is another matter: nobody here asks for fsync.)
//  - A jail's state exists twice; commit() fills the idle copy and then switches with one store. What is
//  appended
//    lies behind the committed tail and counts only from that store on.
//  - Datagrams are received straight into the ring (Inbox). The kernel writes length and credentials behind
//  each one
//    into memory that was zeroed before, so what came is known even when the relay died inside recvmmsg.
//  - What is being written is in the ring too (outbox, Outgoing), with what is needed to see how far it came.
//
// Each jail has a region of its own, so that no jail pushes out what another has said. It has two lanes:
// warnings and worse have one that chatter cannot fill. A full lane drops its oldest record and counts it.
// Memory is used as it is touched: a jail whose sinks keep up needs a few pages.
//
// Nothing here trusts what it finds: a ring that a broken relay left behind is checked before it is used.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/log/record.h"

namespace jail::log {

enum class Sink : std::size_t { file = 0, syslog = 1 };

inline constexpr std::size_t batch_size = 32;           ///< datagrams of one jail received in one turn
inline constexpr std::size_t stream_bytes = 64 * 1024;  ///< bytes of one pipe read in one turn
inline constexpr std::size_t outbox_bytes = 64 * 1024;
inline constexpr std::size_t name_bytes = 80;
inline constexpr std::array<std::size_t, 2> lane_bytes = {64 * 1024,
                                                          256 * 1024};  ///< severity 0-4, severity 5-7
inline constexpr std::size_t credentials_bytes = CMSG_SPACE(sizeof(ucred));

/// A place in both lanes. Counts bytes since the lane was last empty.
struct Position {
  std::array<std::uint64_t, 2> lane{};
};

/// A line of a pipe that has not ended yet. It lies in one of two buffers.
struct Partial {
  std::uint32_t buffer = 0;
  std::uint32_t length = 0;
  std::uint64_t truncated = 0;  ///< bytes beyond record_limit
  std::uint64_t since_us = 0;
};

/// Lines on their way into the file. `before` is the size that the file had.
struct OutboxState {
  std::uint32_t length = 0;
  std::uint32_t done = 0;
  std::uint64_t before = 0;
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
};

/// All that changes of a region; copied whole at each commit.
struct State {
  std::uint64_t sequence = 0;              ///< of the next record: keeps order across the lanes
  std::uint64_t batch = 0;                 ///< the Inbox batch that was taken last ...
  std::uint64_t taken = 0;                 ///< ... and how many of its slots, or bytes
  std::uint64_t sent = 0;                  ///< the Outgoing that was accounted last
  std::array<std::uint64_t, 2> tail{};     ///< of each lane
  std::array<Position, 2> cursor{};        ///< of each sink
  std::array<std::uint64_t, 2> dropped{};  ///< for each sink, not yet told
  std::array<Partial, 2> partial{};        ///< of stdout and stderr
  OutboxState out;
};

/// The memory of one jail. `text` of a lane holds entries, each 8-byte aligned and in one piece.
struct RegionMemory {
  std::array<char, name_bytes> name;
  std::uint32_t used;
  std::atomic<std::uint32_t> active;
  std::array<State, 2> states;
  alignas(4096) std::array<std::array<std::array<char, record_limit>, 2>, 2> partial;
  std::array<char, outbox_bytes> outbox;
  std::array<char, lane_bytes[0]> warnings;
  std::array<char, lane_bytes[1]> chatter;
};

/// What is being received, by recvmmsg or read. `kind` is set, last, when all the rest is ready for it.
struct Inbox {
  enum Kind : std::uint32_t { idle = 0, datagrams = 1, out = 2, err = 3 };
  std::uint64_t batch;
  std::atomic<std::uint32_t> kind;
  std::uint32_t region;
  std::uint64_t time_us;
  std::array<mmsghdr, batch_size> headers;
  std::array<iovec, batch_size> vectors;
  alignas(8) std::array<std::array<char, credentials_bytes>, batch_size> control;
  std::array<std::array<char, record_limit>, batch_size> data;
  std::array<char, stream_bytes> stream;  ///< zero wherever nothing was read
};

/// What is being sent to the host's syslog. `count` is set, last, when all the rest is ready.
struct Outgoing {
  std::uint64_t id;
  std::atomic<std::uint32_t> count;
  std::uint32_t region;
  std::uint64_t reported;  ///< drops that the first message tells of; 0: it is a record
  std::array<Position, batch_size> after;
  std::array<mmsghdr, batch_size> headers;
  std::array<iovec, batch_size> vectors;
  std::array<char, outbox_bytes> text;
};

/// The head of the ring.
struct RingMemory {
  std::uint64_t magic;
  std::uint64_t version;
  alignas(4096) Inbox inbox;
  alignas(4096) Outgoing outgoing;
};

/// One jail's part of the ring. A view: copies are cheap, the Ring owns the memory.
class Region {
 public:
  Region(RegionMemory* memory, std::uint32_t number) : memory_(memory), number_(number) {}

  [[nodiscard]] std::string_view name() const;
  [[nodiscard]] std::uint32_t number() const { return number_; }
  [[nodiscard]] const State& state() const {
    return memory_->states[memory_->active.load(std::memory_order_acquire) & 1U];
  }
  [[nodiscard]] RegionMemory& memory() const { return *memory_; }

  /// Changes the state in one step: `change(State&)`.
  template <class Change>
  void commit(Change change) const {
    const std::uint32_t idle = (memory_->active.load(std::memory_order_relaxed) & 1U) ^ 1U;
    memory_->states[idle] = state();
    change(memory_->states[idle]);
    memory_->active.store(idle, std::memory_order_release);
  }

  /// Appends `record` and applies `also(State&)`, in one step. Makes room by dropping what is oldest in its
  /// lane.
  template <class Also>
  void append(const Record& record, bool for_syslog, Also also) const {
    const Place place = prepare(record);
    commit([&](State& state) {
      advance(state, place, for_syslog);
      also(state);
    });
  }

  /// The next record after `at` that `sink` has not had, oldest first; `at` moves behind it. False: there is
  /// none.
  [[nodiscard]] bool next(Position& at, Record& record) const;
  [[nodiscard]] bool pending(Sink sink) const;
  /// Nothing is left to write: no records, no outbox, no drops to tell of to the file.
  [[nodiscard]] bool drained() const;

  /// Makes an impossible state an empty one. True if it had to.
  bool repair() const;

 private:
  struct Place {
    std::size_t lane;
    std::uint64_t tail;
  };
  [[nodiscard]] char* text(std::size_t lane) const {
    return lane == 0 ? memory_->warnings.data() : memory_->chatter.data();
  }
  [[nodiscard]] Place prepare(const Record& record) const;
  static void advance(State& state, const Place& place, bool for_syslog);
  void drop_oldest(std::size_t lane) const;

  RegionMemory* memory_;
  std::uint32_t number_;
};

/// The whole ring, mapped.
class Ring {
 public:
  /// A new, empty memfd that can only grow.
  [[nodiscard]] static Result<UniqueFd> make();
  /// Maps `fd` (borrowed; it must stay open while the Ring lives). Waits for the former owner's end. Records
  /// that this relay's predecessor received are taken over into their regions; what was being sent is
  /// accounted.
  [[nodiscard]] static Result<Ring> attach(int fd);
  /// The pid of the relay that owns the ring `fd`; 0 if none.
  [[nodiscard]] static int owner(int fd);

  Ring(Ring&&) noexcept = default;
  Ring& operator=(Ring&&) noexcept = default;

  [[nodiscard]] Inbox& inbox() const { return memory_->inbox; }
  [[nodiscard]] Outgoing& outgoing() const { return memory_->outgoing; }

  /// The region of `name`; made if there is none.
  [[nodiscard]] Result<Region> region(std::string_view name);
  [[nodiscard]] Region at(std::uint32_t number) const { return {regions_[number].get(), number}; }
  [[nodiscard]] std::size_t size() const { return regions_.size(); }
  /// Gives the region to the next that needs one.
  void release(Region region) const;

 private:
  struct Unmap {
    void operator()(RingMemory* memory) const;
    void operator()(RegionMemory* memory) const;
  };
  Ring(int fd, RingMemory* memory) : fd_(fd), memory_(memory) {}
  Result<void> map_next();
  void check();
  void recover();

  int fd_;
  std::unique_ptr<RingMemory, Unmap> memory_;
  std::vector<std::unique_ptr<RegionMemory, Unmap>> regions_;
};

}  // namespace jail::log
