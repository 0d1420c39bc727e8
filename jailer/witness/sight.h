// What stands at a path, in the numbers that tell whether it still does.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "jailer/witness/fields.h"
#include "jailer/witness/looks.h"

namespace jail {

/// Those that do not count for a way to look are 0; all are where nothing is there.
struct Sight {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t mode = 0;
  std::uint64_t owner = 0;
  std::uint64_t size = 0;
  std::int64_t mtime = 0;
  std::int64_t ctime = 0;
  bool operator==(const Sight&) const = default;
};

/// Nothing for an error that does not say whether something is there.
[[nodiscard]] std::optional<Sight> see(const std::string& path, LookAt how);

void put(FieldWriter& out, const Sight& sight);
[[nodiscard]] Sight take_sight(FieldReader& in);

/// All `looks` with what is there now, sorted and without doubles; nothing where something is no longer what
/// was looked at, or changed in the tick in which the first look was taken, or later (git's "racy" rule).
[[nodiscard]] std::optional<std::string> sights_of(const Looks& looks);

/// Whether each of these looks, as sights_of() wrote them, would see the same today. `also` hears of each,
/// and may be null.
[[nodiscard]] bool same_sights(FieldReader& in, Looks* also = nullptr);

}  // namespace jail
