// Plan -> generation, and back: building, verifying, listing and removing generations.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "jailer/closure/mentions.h"
#include "jailer/closure/plan.h"
#include "jailer/manifest/model.h"
#include "jailer/tree/compare.h"
#include "jailer/tree/lock.h"
#include "jailer/tree/verify.h"
#include "jailer/witness/looks.h"
#include "jailer/witness/memo.h"
#include "supervisor/base/error.h"
#include "supervisor/spec/generation.h"
#include "supervisor/spec/instance.h"
#include "supervisor/spec/launch_spec.h"

namespace jail {

/// All that a generation freezes besides the tree.
struct Frozen {
  std::string manifest_json;  ///< manifest.json
  std::string launch_json;    ///< launch.json
  std::string filter;         ///< filter.bpf: the bytes of struct sock_filter[]
};

struct BuildResult {
  unsigned long generation = 0;
  bool changed =
      false;  ///< false: the current generation already is what the plan asks for; nothing was written
  std::size_t files = 0;
  std::uint64_t bytes = 0;
  std::vector<std::string> warnings =
      {};  ///< the plan's, and of libraries that are named and not in the tree
  /// What was wrong with the generation before, although nothing had changed: whole sentences.
  std::vector<std::string> mended = {};
};

struct BuildOptions {
  /// Make a new generation even if nothing changed, and trust no stamp: objects of the store are read again.
  bool force = false;
  /// What the plan was made from, if that is known: a build that finds nothing to do leaves a witness of it.
  Looks* looks = nullptr;
  /// What the plan was made with, or for: kept for the next build, which finds there too whether the closures
  /// of this tree were checked.
  Memo* memo = nullptr;
};

/// Builds the jail `plan.name`: stages beside, writes lock and index, syncs once, switches `current`. Killed
/// at any instant, the old generation still is the current one. One build of a jail at a time: Exit::busy
/// otherwise. Volumes are made if missing; one that exists with another owner or mode is an error that says
/// what to do. Keeps the two generations before the new one, and those that processes live in.
[[nodiscard]] Result<BuildResult> build(const Instance& instance, const Plan& plan, const Frozen& frozen,
                                        const BuildOptions& options = {});

/// What a build would change in the current generation (or in `number`), without making one: by the same look
/// at every source.
/// What it reads anew stays in the store for the build that may follow. Exit::no_input where nothing is built
/// yet.
[[nodiscard]] Result<LockDiff> preview(const Instance& instance, const Plan& plan, const Frozen& frozen,
                                       unsigned long number = 0);

/// One built jail.
struct Built {
  std::string name;
  unsigned long generation = 0;  ///< the current one; 0 if `current` is missing or broken
  std::size_t files = 0;
  std::uint64_t bytes = 0;            ///< apparent size of the tree
  std::vector<std::string> provides;  ///< beyond its name
};
[[nodiscard]] Result<std::vector<Built>> list(const Instance& instance);

/// The processes that have a tree of `name` (of any generation) as their root: a jail that runs, whoever
/// started it.
[[nodiscard]] Result<std::vector<pid_t>> running_in(const Instance& instance, const std::string& name);

/// The generations of `name` that are there, rising. Takes no lock.
[[nodiscard]] Result<std::vector<unsigned long>> generation_numbers(const Instance& instance,
                                                                    const std::string& name);

/// The one before `number` that is there; Exit::no_input where there is none.
[[nodiscard]] Result<unsigned long> generation_before(const Instance& instance, const std::string& name,
                                                      unsigned long number);

/// The processes that live in each of the generations of `name`, rising, from one look over /proc.
[[nodiscard]] Result<std::map<unsigned long, std::vector<pid_t>>> generations_in_use(const Instance& instance,
                                                                                     const std::string& name);

struct Rollback {
  unsigned long from = 0;
  unsigned long to = 0;
};

/// Makes the generation `number` (0: the one before the current) the current one. It must be as it was built,
/// every byte, and its volumes must fit; what runs is not touched.
[[nodiscard]] Result<Rollback> rollback(const Instance& instance, const std::string& name,
                                        unsigned long number);

/// Removes the generation `number`. Not the current one, and not one that processes live in: Exit::busy.
[[nodiscard]] Result<void> remove_generation(const Instance& instance, const std::string& name,
                                             unsigned long number);
struct GcOptions {
  bool dry_run = false;
  std::size_t keep = 2;  ///< how many generations before the current one, of each jail
};

struct GcResult {
  struct Generation {
    std::string jail;
    unsigned long number = 0;
    std::uint64_t bytes = 0;  ///< on the disk, without what it shares with the store
  };
  struct Used {
    std::string jail;
    unsigned long number = 0;
    std::vector<pid_t> processes;  ///< that live in it; none: jaild has it loaded
  };
  std::vector<Generation> generations;  ///< removed, or (dry run) would be
  std::vector<Used> used;               ///< old, but used
  std::size_t objects = 0;              ///< of the store that no tree needs
  std::uint64_t bytes = 0;              ///< freed in all, on the disk
  std::vector<Error> busy;              ///< what was left alone, as a build is at it
};

/// Removes generations that are neither kept nor used, what builds and removals that died have left, and
/// objects of the store that no tree has. Volumes stay. What a build is at is left alone and told.
[[nodiscard]] Result<GcResult> collect_garbage(const Instance& instance, const GcOptions& options);

/// Removes every generation of `name`; with `purge` its volumes too, unless another jail's lock uses them. A
/// jail that still runs is the caller's to refuse. What other jails share in the store stays.
[[nodiscard]] Result<void> remove(const Instance& instance, const std::string& name, bool purge);

}  // namespace jail
