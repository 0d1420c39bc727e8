// What goes over the socket between keeper and jaild: records of one size, one a message, at most one
// descriptor with each. Both ends are of the same build or of two that follow each other, so the layout is
// fixed for ever.
//
//   keeper, to each new jaild:   held + descriptor (0 or more), reaped (0 or more), end; later reaped as they
//   come jaild, at any time:          store + descriptor, drop
#pragma once

#include <cstdint>
#include <type_traits>

#include "supervisor/keeper/keeper.h"

namespace jail::keeper {

enum class Op : std::uint32_t { store = 1, drop = 2, held = 3, reaped = 4, end = 5 };

struct Record {
  Op op = Op::end;
  std::int32_t pid = 0;       ///< reaped
  std::int32_t status = 0;    ///< reaped: as waitpid(2) gives it
  char name[name_size] = {};  ///< store, drop, held; ends in a NUL
};
static_assert(sizeof(Record) == 132 && std::is_trivially_copyable_v<Record>);

}  // namespace jail::keeper
