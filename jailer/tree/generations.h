// jails/NAME: its lock, the staging of a new generation, the switch, and what is kept of the old ones.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "jailer/tree/remove_tree.h"
#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/spec/instance.h"

namespace jail::tree {

/// The directory of one jail, locked against other builds for as long as this lives.
struct JailDir {
  std::string name;
  std::string path;
  UniqueFd parent;  ///< STATE/jails
  UniqueFd dir;
  UniqueFd generations;
  UniqueFd lock;
};

/// Opens and locks jails/NAME; Exit::busy if another build has it for longer than a moment. Where not `make`,
/// a jail that is not there is Exit::no_input.
[[nodiscard]] Result<JailDir> open_jail(const Instance& instance, const std::string& name, bool make);

/// Generations that are there, rising.
[[nodiscard]] Result<std::vector<unsigned long>> generation_numbers(const JailDir& jail);
/// The same, of the open directory gen/, whose path is for messages.
[[nodiscard]] Result<std::vector<unsigned long>> numbers_in(int generations, const std::string& path);

/// Removes what builds that died have left. The lock must be held.
[[nodiscard]] Result<void> clean_stale(const JailDir& jail);

/// Removes the jail's directory again if no generation is in it: what a first build that failed has made.
void remove_if_empty(const JailDir& jail);

/// A generation in the making: gen/.new-PID, 0700. Removed at the end of its life unless published.
class Staging {
 public:
  [[nodiscard]] static Result<Staging> make(const JailDir& jail);
  Staging(Staging&&) noexcept;
  Staging(const Staging&) = delete;
  Staging& operator=(Staging&&) = delete;
  ~Staging();

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  /// Gives it its number; what is to last must have been synced.
  [[nodiscard]] Result<void> publish(unsigned long number);

 private:
  Staging(const JailDir& jail, std::string name, UniqueFd fd)
      : jail_(&jail), name_(std::move(name)), fd_(std::move(fd)) {}
  const JailDir* jail_;
  std::string name_;
  UniqueFd fd_;
};

/// Points `current` to the generation: a temporary symlink, renamed over it.
[[nodiscard]] Result<void> switch_current(const JailDir& jail, unsigned long number);

/// Which processes have which directory as their root, from one look over /proc.
using Roots = std::map<std::pair<dev_t, ino_t>, std::vector<pid_t>>;
[[nodiscard]] Roots process_roots();
/// Those whose root is the tree of generation `number`.
[[nodiscard]] std::vector<pid_t> processes_in(const JailDir& jail, unsigned long number, const Roots& roots);
/// The same, of an open generation.
[[nodiscard]] std::vector<pid_t> processes_in(int generation, const Roots& roots);

/// How many generations before the current one a build keeps.
inline constexpr std::size_t kept_before_current = 2;

/// What `jail` keeps besides and what it need not: of the generations before `current`, beyond `keep` of
/// them. Those after it stay (a rollback went back from them), those that somebody uses too.
struct Spare {
  struct Doomed {
    unsigned long number = 0;
    UniqueFd claim;  ///< its directory, locked: nobody begins to use it (generation::hold_current())
  };
  struct Used {
    unsigned long number = 0;
    std::vector<pid_t> processes;  ///< that live in it; none: jaild has it loaded
  };
  std::vector<Doomed> doomed;
  std::vector<Used> used;
};
[[nodiscard]] Result<Spare> spare_generations(const JailDir& jail, unsigned long current, std::size_t keep);

/// Removes one that nobody needs.
[[nodiscard]] Result<void> remove_generation(const JailDir& jail, const Spare::Doomed& doomed,
                                             const UnlinkWatch& watch);

}  // namespace jail::tree
