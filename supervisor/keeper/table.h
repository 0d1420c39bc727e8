// The keeper's memory: what it holds, whose ends it has to tell, how long a crashing jaild waits. Fixed
// sizes, no heap, no system call but close(2).
#pragma once

#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "supervisor/keeper/keeper.h"

namespace jail::keeper {

/// Held descriptors in the order of their first store. Owns them.
template <std::size_t Capacity>
class Table {
 public:
  struct Entry {
    int fd;
    char name[name_size];
  };

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] const Entry& operator[](std::size_t at) const noexcept { return entries_[at]; }

  /// Takes `fd`. A name that is there already keeps its place and loses its old descriptor. False when full:
  /// `fd` is closed then.
  bool store(const char* name, int fd) noexcept {
    const std::size_t at = find(name);
    if (at == Capacity) {
      ::close(fd);
      return false;
    }
    if (at == size_) {
      const std::size_t length = ::strnlen(name, name_size - 1);
      std::memcpy(entries_[at].name, name, length);
      entries_[at].name[length] = '\0';
      ++size_;
    } else {
      ::close(entries_[at].fd);
    }
    entries_[at].fd = fd;
    return true;
  }

  /// Closes the descriptor of `name`. The place it had, or size() as it was when there was none.
  std::size_t drop(const char* name) noexcept {
    const std::size_t at = find(name);
    if (at == size_) return size_;
    ::close(entries_[at].fd);
    std::memmove(&entries_[at], &entries_[at + 1], (size_ - at - 1) * sizeof(Entry));
    --size_;
    return at;
  }

 private:
  [[nodiscard]] std::size_t find(const char* name) const noexcept {
    std::size_t at = 0;
    while (at < size_ && std::strncmp(entries_[at].name, name, name_size) != 0) ++at;
    return at;
  }

  std::size_t size_ = 0;
  // Entries above size_ are never touched: the pages of an empty table cost nothing.
  std::array<Entry, Capacity> entries_;
};

/// Ends that jaild was not told of yet, oldest first. Full, it forgets the oldest.
template <std::size_t Capacity>
class Ring {
 public:
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] const Reaped& front() const noexcept { return items_[head_]; }

  void pop() noexcept {
    head_ = (head_ + 1) % Capacity;
    --size_;
  }
  /// False when the oldest had to go.
  bool push(Reaped item) noexcept {
    const bool room = size_ < Capacity;
    if (!room) pop();
    items_[(head_ + size_) % Capacity] = item;
    ++size_;
    return room;
  }

 private:
  std::size_t head_ = 0;
  std::size_t size_ = 0;
  std::array<Reaped, Capacity> items_;
};

/// How long jaild stays away after a death. One that lived for a second, or was killed from outside (SIGKILL
/// is no defect of its own), is back at once. One that dies by itself within a second is back at once the
/// first time, then after 100 ms, 200 ms ... 5 s; killed from outside more than free_kills times in a row it
/// waits as well, for then something (out of memory?) keeps doing it.
class Backoff {
 public:
  static constexpr std::int64_t short_life_ms = 1000;
  static constexpr std::int64_t first_delay_ms = 100;
  static constexpr std::int64_t max_delay_ms = 5000;
  static constexpr unsigned free_kills = 200;

  /// The delay in milliseconds after a life of `lived_ms`.
  std::int64_t after_death(std::int64_t lived_ms, bool killed) noexcept {
    if (lived_ms >= short_life_ms) {
      kills_ = deaths_ = 0;
      return 0;
    }
    if (killed && ++kills_ <= free_kills) return 0;
    const unsigned doubled = deaths_ > 7 ? 7 : deaths_;
    if (deaths_++ == 0) return 0;
    const std::int64_t delay = first_delay_ms << (doubled - 1);
    return delay > max_delay_ms ? max_delay_ms : delay;
  }

 private:
  unsigned kills_ = 0;   ///< from outside, in a row
  unsigned deaths_ = 0;  ///< by itself, in a row
};

}  // namespace jail::keeper
