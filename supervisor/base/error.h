// Errors: what every function of ours that can fail returns.
//
// A message says where (file, line, step), and why; the hint says what to do next. Both are whole sentences
// without a final newline; bytes that we did not make go in through quote() (base/quote.h).
#pragma once

#include <fmt/format.h>

#include <cstring>
#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace jail {

/// Exit statuses of our programs: 0 and 1, else sysexits.h. `answer_no` is not a failure: verify found
/// differences, a check failed, something is stale.
enum class Exit : int {
  ok = 0,
  answer_no = 1,
  usage = 64,
  manifest = 65,     ///< the manifest (or another input file) has errors: EX_DATAERR
  no_input = 66,     ///< no such manifest, jail, file
  unavailable = 69,  ///< the supervisor cannot be reached
  internal = 70,     ///< a defect of ours
  host = 71,         ///< the host lacks something: EX_OSERR
  cannot_create = 73,
  io = 74,
  busy = 75,  ///< try again later: EX_TEMPFAIL
  permission = 77,
  config = 78,
};

struct Error {
  Exit exit = Exit::internal;
  std::string message;
  std::string hint;  ///< what to do next; may be empty
};

template <class T>
using Result = tl::expected<T, Error>;

/// `return fail(Exit::io, "{}: cannot read", path);` converts to any Result<T>.
template <class... Args>
[[nodiscard]] tl::unexpected<Error> fail(Exit exit, fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected(Error{exit, fmt::format(format, std::forward<Args>(args)...), {}});
}

/// As fail(), with ": " and the words of `error_number` (an errno) behind the message.
template <class... Args>
[[nodiscard]] tl::unexpected<Error> fail_errno(Exit exit, int error_number,
                                               fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected(Error{
      exit, fmt::format(format, std::forward<Args>(args)...) + ": " + ::strerrordesc_np(error_number), {}});
}

/// Adds what to do next: `return with_hint(fail(...), "run: jail build named");`
[[nodiscard]] inline tl::unexpected<Error> with_hint(tl::unexpected<Error> error, std::string hint) {
  error.value().hint = std::move(hint);
  return error;
}

}  // namespace jail

/// JAIL_TRY(value, expression): `value` is a reference to what the Result holds; an error is returned.
#define JAIL_TRY(name, ...)                                                    \
  auto name##_result = (__VA_ARGS__);                                          \
  if (!name##_result) return tl::unexpected(std::move(name##_result).error()); \
  auto& name = *name##_result

/// For a Result<void>, or one whose value is not wanted.
#define JAIL_CHECK(...)                                                                  \
  do {                                                                                   \
    auto jail_check_result = (__VA_ARGS__);                                              \
    if (!jail_check_result) return tl::unexpected(std::move(jail_check_result).error()); \
  } while (false)
