// System calls without the C library: no errno, no locks, no cancellation points, nothing that could
// allocate. For the code between clone and exec (after_fork.cpp), and for jail-init, where two tasks may
// share one memory: the result is the value, or -errno.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <type_traits>

namespace jail::sandbox {

template <class T>
[[nodiscard]] inline long raw_argument(T value) noexcept {
  if constexpr (std::is_pointer_v<T>)
    return reinterpret_cast<long>(value);
  else if constexpr (std::is_null_pointer_v<T>)
    return 0;
  else
    return static_cast<long>(value);
}

/// The six-argument call itself.
inline long raw_call6(long number, long a, long b, long c, long d, long e, long f) noexcept {
#if defined(__x86_64__)
  long result = number;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "+a"(result)
                   : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
#else
#error "raw_call6: write the system call instruction of this architecture"
#endif
}

/// raw(SYS_openat, AT_FDCWD, "x", O_RDONLY): the result, or -errno.
template <class... Args>
inline long raw(long number, Args... args) noexcept {
  static_assert(sizeof...(Args) <= 6);
  const long values[7] = {raw_argument(args)...};
  return raw_call6(number, values[0], values[1], values[2], values[3], values[4], values[5]);
}

}  // namespace jail::sandbox
