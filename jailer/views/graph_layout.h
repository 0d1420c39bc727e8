// Where things stand in the picture of a jail: boxes in columns, from the manifest to what is needed last.
#pragma once

#include <string>
#include <vector>

#include "jailer/views/inventory.h"

namespace jail::views {

enum class Column : std::uint8_t { manifest, programs, libraries, deeper, data };
inline constexpr std::size_t columns = 5;

/// A package, or what is no file.
struct Box {
  std::string title;
  std::string subtitle;
  Column column = Column::data;
  std::vector<std::string> notes;       ///< lines that are no entries
  std::vector<const LockEntry*> lines;  ///< one below the other, with names
  std::vector<const LockEntry*> cells;  ///< small ones behind: those are many
  std::uint64_t bytes = 0;
  bool package = false;  ///< of files, if without a name
  bool common = false;   ///< nearly all need it: no arrows to it
  double x = 0;
  double y = 0;
  double height = 0;
};

struct Arrow {
  std::size_t from = 0;
  std::size_t to = 0;
  std::vector<std::string> why;  ///< a line each
};

struct Layout {
  std::vector<Box> boxes;  ///< the manifest's first
  std::vector<Arrow> arrows;
  double width = 0;
  double height = 0;
};

namespace measure {
inline constexpr double margin = 24;
inline constexpr double top = 108;  ///< title and legend
inline constexpr double box_width = 270;
inline constexpr double gap_x = 90;
inline constexpr double gap_y = 14;
inline constexpr double head = 38;
inline constexpr double line = 15;
inline constexpr double cell = 8;
inline constexpr double cell_step = 10;
inline constexpr double padding = 6;
}  // namespace measure

/// `lock` and `inventory` are borrowed.
[[nodiscard]] Layout lay_out(const Lock& lock, const Inventory& inventory);

}  // namespace jail::views
