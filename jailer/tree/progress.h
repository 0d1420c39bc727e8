// How far a long work is: workers add to it, whoever shows it reads it.
#pragma once

#include <atomic>
#include <cstdint>

namespace jail::tree {

struct Progress {
  std::atomic<std::uint64_t> done{0};  ///< bytes
  std::atomic<std::uint64_t> total{0};
};

}  // namespace jail::tree
