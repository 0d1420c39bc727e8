// Work spread over the processors: the jobs of one build or verification, each with a result of its own.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <future>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "jailer/tree/hash.h"
#include "supervisor/base/error.h"

namespace jail::tree {

/// What each worker has for itself.
struct Worker {
  Sha256 hash;
  std::string buffer;
};

/// Begins `job` in a thread of its own; where none is to be had, it is done by whoever asks for its result.
template <class Job>
[[nodiscard]] auto in_background(Job job) {
  try {
    return std::async(std::launch::async, job);
  } catch (const std::system_error&) {
    return std::async(std::launch::deferred, job);
  }
}

/// Calls `job(index, worker)` for each index below `count`, in several threads when there is much to do
/// (`bytes`). The error of the lowest index is returned; the others are done nevertheless.
template <class Job>
[[nodiscard]] Result<void> parallel(std::size_t count, std::uint64_t bytes, const Job& job) {
  std::vector<Result<void>> results(count);
  std::atomic<std::size_t> next{0};
  auto work = [&]() {
    Worker worker;
    for (std::size_t i = next++; i < count; i = next++) results[i] = job(i, worker);
  };
  constexpr std::uint64_t worth_a_thread = 1U << 20U;
  const std::size_t most = std::clamp<std::size_t>(std::thread::hardware_concurrency(), 1, 8);
  const std::size_t threads = bytes < worth_a_thread ? 1 : std::min(most, count);
  std::vector<std::thread> pool;
  try {
    for (std::size_t i = 1; i < threads; ++i) pool.emplace_back(work);
  } catch (const std::system_error&) {
    // No more threads to be had (a limit on processes): those that are there do it all.
  }
  work();
  for (std::thread& thread : pool) thread.join();
  for (Result<void>& result : results)
    if (!result) return tl::unexpected(std::move(result).error());
  return {};
}

}  // namespace jail::tree
