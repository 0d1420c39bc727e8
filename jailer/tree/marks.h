// What is noted of a jail beside its generations, in STATE/jails/NAME: why it is stale, and where a refresh
// stands. The directory is root's alone, or nothing in it is read or written. `jail remove` takes it all
// away.
#pragma once

#include <string>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/spec/instance.h"

namespace jail {

namespace tree {
inline constexpr const char* stale_mark = "stale";
inline constexpr const char* refresh_note = "refresh.json";
}  // namespace tree

/// Marks the jail as stale, for these reasons ("libssl3 3.0.11-1 -> 3.0.14-1"), a line each. A mark that says
/// the same stays as it is.
[[nodiscard]] Result<void> mark_stale(const Instance& instance, const std::string& name,
                                      const std::vector<std::string>& reasons);
/// It is not stale any more; one without a mark is no error.
[[nodiscard]] Result<void> clear_stale(const Instance& instance, const std::string& name);
/// The reasons of its mark, fit to be printed; none where it has none, or none that can be read.
[[nodiscard]] std::vector<std::string> stale_reasons(const Instance& instance, const std::string& name);

/// Whether anything is noted of the jail: two looks, for those who have none to spare.
[[nodiscard]] bool has_notes(const Instance& instance, const std::string& name);

/// Where a refresh of the jail stands, or stood when it was killed.
struct RefreshNote {
  unsigned long from = 0;    ///< what served before, and is gone back to; 0: none is under way
  unsigned long to = 0;      ///< what it has built; 0: not yet
  bool runs = false;         ///< there is a service to change over
  unsigned long failed = 0;  ///< the generation that was tried last and did not serve; 0: none
  std::string why;           ///< it did not
  bool operator==(const RefreshNote&) const = default;
};

/// One refresh of a jail at a time, for as long as this lives.
class RefreshLock {
 public:
  /// Exit::busy where another one has it; Exit::no_input where the jail is not built.
  [[nodiscard]] static Result<RefreshLock> take(const Instance& instance, const std::string& name);
  [[nodiscard]] RefreshNote read() const;
  [[nodiscard]] Result<void> write(const RefreshNote& note) const;

 private:
  RefreshLock(UniqueFd dir, std::string path) : dir_(std::move(dir)), path_(std::move(path)) {}
  UniqueFd dir_;
  std::string path_;
};

/// What is to be told about refreshes of the jail: one that was interrupted, one that failed. Empty: nothing.
[[nodiscard]] std::vector<std::string> refresh_remarks(const Instance& instance, const std::string& name);

}  // namespace jail
