#include "jailer/views/graph_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>

#include "jailer/views/format.h"

namespace jail::views {
namespace {

using namespace measure;

constexpr std::size_t most_lines = 26;    ///< of a box; the smaller files become cells
constexpr std::size_t most_reasons = 12;  ///< told of one arrow
constexpr double common_from = 0.6;       ///< of all packages that load anything
constexpr double tallest_column = 2400;   ///< then a column gets a second one beside it

bool is_program(const LockEntry& entry) {
  return std::any_of(entry.why.begin(), entry.why.end(), [&](const Reason& why) {
    return why.by.empty() && (why.kind == "binary" || ((entry.mode & 0111U) != 0 && !entry.package.empty()));
  });
}

/// "2 by binary", "5 by device": what the manifest asks for, by the kind of reason.
std::vector<std::string> demands(const Lock& lock) {
  std::map<std::string, std::size_t> counts;
  for (const LockEntry& entry : lock.entries) {
    const auto direct = std::find_if(entry.why.begin(), entry.why.end(), [](const Reason& why) {
      return why.by.empty() && why.kind != "parent";
    });
    if (direct == entry.why.end()) continue;
    ++counts[direct->kind == "bundle" ? direct->detail : direct->kind];
  }
  static const std::map<std::string, std::string> words = {{"binary", "programs"},
                                                           {"library", "libraries"},
                                                           {"file", "files, directories and links"},
                                                           {"user", "files that name the users"},
                                                           {"device", "devices"},
                                                           {"mount", "places to mount on"},
                                                           {"loader", "loader cache"}};
  std::vector<std::string> lines;
  for (const auto& [kind, count] : counts) {
    const auto word = words.find(kind);
    lines.push_back(fmt::format("{} {}", count, word == words.end() ? "for " + kind : word->second));
  }
  return lines;
}

class Planner {
 public:
  Planner(const Lock& lock, const Inventory& all) : lock_(lock), all_(all) {}

  Layout run() {
    choose_columns();
    add_manifest();
    for (std::size_t i = 0; i < all_.packages.size(); ++i) add_package(i);
    add_rest();
    add_arrows();
    place();
    return std::move(layout_);
  }

 private:
  /// Programs; what they load at once; what that loads; and what nobody loads.
  void choose_columns() {
    const std::size_t count = all_.packages.size();
    column_.assign(count, Column::data);
    std::vector<bool> needed(count, false);
    std::size_t loading = 0;
    std::vector<std::size_t> needers(count, 0);
    for (const Package& package : all_.packages) {
      loading += package.depends.empty() ? 0 : 1;
      for (const std::size_t other : package.depends) {
        needed[other] = true;
        ++needers[other];
      }
    }
    std::vector<std::size_t> distance(count, 0);
    std::deque<std::size_t> next;
    for (std::size_t i = 0; i < count; ++i) {
      const auto& files = all_.packages[i].files;
      const bool program =
          std::any_of(files.begin(), files.end(), [](const auto* file) { return is_program(*file); });
      common_.push_back(loading > 3 &&
                        static_cast<double>(needers[i]) > common_from * static_cast<double>(loading));
      if (!program || common_.back()) continue;
      column_[i] = Column::programs;
      distance[i] = 1;
      next.push_back(i);
    }
    while (!next.empty()) {
      const std::size_t here = next.front();
      next.pop_front();
      for (const std::size_t other : all_.packages[here].depends) {
        if (distance[other] != 0) continue;
        distance[other] = distance[here] + 1;
        column_[other] = distance[other] == 2 && !common_[other] ? Column::libraries : Column::deeper;
        next.push_back(other);
      }
    }
    for (std::size_t i = 0; i < count; ++i)
      if (column_[i] == Column::data && (needed[i] || !all_.packages[i].depends.empty()))
        column_[i] = Column::deeper;
  }

  void add_manifest() {
    Box& box = layout_.boxes.emplace_back();
    box.title = lock_.name;
    box.subtitle = "the manifest asks for";
    box.column = Column::manifest;
    box.notes = demands(lock_);
    box.height = head + static_cast<double>(box.notes.size()) * line + padding;
  }

  void add_package(std::size_t index) {
    const Package& package = all_.packages[index];
    Box box;
    box.title = package.name.empty() ? "without a package" : package.name;
    box.column = column_[index];
    box.package = true;
    box.common = common_[index];
    box.subtitle = fmt::format("{}{}{}", package.version, package.version.empty() ? "" : " · ",
                               human_size(package.bytes));
    box.subtitle += box.common ? " · nearly all need it"
                               : fmt::format(" in {} {}", package.files.size(),
                                             package.files.size() == 1 ? "file" : "files");
    box.bytes = package.bytes;
    box.lines = package.files;
    std::stable_sort(box.lines.begin(), box.lines.end(),
                     [](const auto* a, const auto* b) { return a->size > b->size; });
    if (box.lines.size() > most_lines + 2) {
      box.cells.assign(box.lines.begin() + most_lines, box.lines.end());
      box.lines.resize(most_lines);
    }
    box_of_.push_back(layout_.boxes.size());
    add(std::move(box));
  }

  void add(Box box) {
    const auto per_row = static_cast<std::size_t>((box_width - 2 * padding) / cell_step);
    box.height = head + static_cast<double>(box.lines.size()) * line +
                 std::ceil(static_cast<double>(box.cells.size()) / static_cast<double>(per_row)) * cell_step +
                 padding;
    layout_.boxes.push_back(std::move(box));
  }

  /// What is no file: directories, links, devices.
  void add_rest() {
    static constexpr std::pair<const char*, bool (*)(EntryType)> kinds[] = {
        {"Devices",
         [](EntryType type) {
           return type == EntryType::character_device || type == EntryType::block_device;
         }},
        {"Links", [](EntryType type) { return type == EntryType::symlink; }},
        {"Directories", [](EntryType type) { return type == EntryType::directory; }}};
    for (const auto& [name, match] : kinds) {
      Box box;
      for (const LockEntry& entry : lock_.entries)
        if (match(entry.type)) box.cells.push_back(&entry);
      if (box.cells.empty()) continue;
      box.title = name;
      box.subtitle = fmt::format("{}, one square each", box.cells.size());
      if (box.cells.size() <= 8) {
        box.subtitle = fmt::format("{} of them", box.cells.size());
        box.lines.swap(box.cells);
      }
      add(std::move(box));
    }
  }

  void add_arrows() {
    std::map<std::pair<std::size_t, std::size_t>, Arrow> arrows;
    const auto tell = [&](std::size_t from, std::size_t to, std::string why) {
      Arrow& arrow = arrows[{from, to}];
      arrow.from = from;
      arrow.to = to;
      if (arrow.why.size() < most_reasons)
        arrow.why.push_back(std::move(why));
      else if (arrow.why.size() == most_reasons)
        arrow.why.emplace_back("and more");
    };
    for (const auto& [file, package] : all_.package_of)
      for (const Reason& reason : file->why)
        if (reason.by.empty() && !reason.kind.empty())
          tell(0, box_of_[package], fmt::format("{}: {} {}", file->path, reason.kind, reason.detail));
    for (const Need& need : all_.needs) {
      const std::size_t from = all_.package_of.at(need.from);
      const std::size_t to = all_.package_of.at(need.to);
      if (from == to || common_[to]) continue;
      tell(box_of_[from], box_of_[to], fmt::format("{} needs {}", need.from->path, need.to->path));
    }
    for (auto& [ends, arrow] : arrows) layout_.arrows.push_back(std::move(arrow));
  }

  /// Boxes of a column by where the arrows to them begin, so that few of these cross.
  void place() {
    std::vector<std::vector<std::size_t>> column(columns);
    for (std::size_t i = 0; i < layout_.boxes.size(); ++i)
      column[static_cast<std::size_t>(layout_.boxes[i].column)].push_back(i);
    double x = margin;
    double lowest = 0;
    for (auto& boxes : column) {
      if (boxes.empty()) continue;
      order(boxes);
      double y = top;
      for (const std::size_t index : boxes) {
        Box& box = layout_.boxes[index];
        if (y > top && y + box.height > tallest_column) {
          x += box_width + gap_y;
          y = top;
        }
        box.x = x;
        box.y = y;
        y += box.height + gap_y;
        lowest = std::max(lowest, y);
      }
      x += box_width + gap_x;
    }
    layout_.width = x - gap_x + margin;
    layout_.height = lowest + margin;
  }

  void order(std::vector<std::size_t>& boxes) const {
    std::map<std::size_t, double> middle;
    for (const std::size_t box : boxes) {
      double sum = 0;
      double count = 0;
      for (const Arrow& arrow : layout_.arrows) {
        if (arrow.to != box || layout_.boxes[arrow.from].column >= layout_.boxes[box].column) continue;
        sum += layout_.boxes[arrow.from].y;
        ++count;
      }
      middle[box] = count > 0 ? sum / count : layout_.boxes[box].package ? 1e6 : 2e6;
    }
    std::stable_sort(boxes.begin(), boxes.end(), [&](std::size_t a, std::size_t b) {
      if (middle[a] != middle[b]) return middle[a] < middle[b];
      return layout_.boxes[a].bytes > layout_.boxes[b].bytes;
    });
  }

  const Lock& lock_;
  const Inventory& all_;
  std::vector<Column> column_;
  std::vector<bool> common_;
  std::vector<std::size_t> box_of_;
  Layout layout_;
};

}  // namespace

Layout lay_out(const Lock& lock, const Inventory& inventory) {
  return Planner(lock, inventory).run();
}

}  // namespace jail::views
