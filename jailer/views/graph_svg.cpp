#include <algorithm>
#include <cmath>

#include "jailer/closure/plan_builder.h"
#include "jailer/closure/source_root.h"
#include "jailer/views/format.h"
#include "jailer/views/graph.h"
#include "jailer/views/graph_layout.h"
#include "supervisor/base/quote.h"

namespace jail::views {
namespace {

using namespace measure;

/// As text or in an attribute. Control bytes and what is not UTF-8 are \xHH already by escape(); XML bans two
/// more characters, U+FFFE and U+FFFF.
std::string xml(std::string_view text) {
  std::string out;
  const std::string safe = escape(text);
  for (std::size_t at = 0; at < safe.size(); ++at) {
    const std::string_view rest = std::string_view(safe).substr(at);
    if (rest.starts_with("\xef\xbf\xbe") || rest.starts_with("\xef\xbf\xbf")) {
      out += rest[2] == '\xbe' ? "\\ufffe" : "\\uffff";
      at += 2;
      continue;
    }
    switch (safe[at]) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += safe[at];
    }
  }
  return out;
}

/// At most `most` characters, the middle left out; whole UTF-8 sequences.
std::string shortened(const std::string& text, std::size_t most) {
  const auto begins = [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U; };
  const auto length = static_cast<std::size_t>(std::count_if(text.begin(), text.end(), begins));
  if (length <= most) return text;
  std::string head_part;
  std::string tail_part;
  std::size_t seen = 0;
  for (const char c : text) {
    seen += begins(c) ? 1 : 0;
    if (seen <= most / 2) head_part += c;
    if (seen > length - (most - most / 2 - 1)) tail_part += c;
  }
  return head_part + "…" + tail_part;
}

struct Look {
  const char* name;
  const char* head;
  const char* bar;
  const char* legend;
};
constexpr Look looks[columns] = {
    {"manifest", "#37474f", "#cfd8dc", "the manifest"},
    {"programs", "#1565c0", "#bbdefb", "programs"},
    {"libraries", "#2e7d32", "#c8e6c9", "what they load"},
    {"deeper", "#6a4f9c", "#d9d0ee", "what that loads"},
    {"data", "#8d6e00", "#f3e3a4", "files that nothing loads"},
};

const Look& look_of(const Box& box) {
  return looks[static_cast<std::size_t>(box.column)];
}

std::string title_of(const LockEntry& entry) {
  std::string text = entry.path;
  if (entry.type == EntryType::symlink) text += " -> " + entry.target;
  std::string lines = xml(text);
  if (entry.type == EntryType::file) lines += "\n" + size_of(entry);
  if (!entry.package.empty()) lines += xml(" from " + entry.package + " " + entry.package_version);
  constexpr std::size_t most = 15;
  for (std::size_t i = 0; i < entry.why.size() && i < most; ++i) lines += "\n" + xml(in_words(entry.why[i]));
  if (entry.why.size() > most) lines += fmt::format("\nand {} reasons more", entry.why.size() - most);
  return "<title>" + lines + "</title>";
}

class Painter {
 public:
  Painter(const Lock& lock, const Inventory& all, const Layout& layout)
      : lock_(lock), all_(all), layout_(layout) {
    for (const LockEntry& entry : lock.entries) largest_ = std::max(largest_, entry.size);
  }

  std::string run() {
    begin();
    legend();
    for (const Arrow& arrow : layout_.arrows) paint(arrow);
    for (const Box& box : layout_.boxes) paint(box);
    text_ += "</svg>\n";
    return std::move(text_);
  }

 private:
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
  }

  void begin() {
    const double width = std::max(layout_.width, 980.0);
    add("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 "
        "{0:.0f} "
        "{1:.0f}\">\n",
        width, layout_.height);
    add("<title>{}</title>\n", xml("jail " + lock_.name));
    text_ += R"(<style>
text { font: 11px "DejaVu Sans", Verdana, sans-serif; fill: #212121; }
.h { font-size: 20px; font-weight: bold; }
.t { font-weight: bold; fill: #ffffff; font-size: 12px; }
.s { fill: #ffffff; font-size: 10px; }
.b { fill: #ffffff; stroke: #b0bec5; }
.r { text-anchor: end; fill: #616161; font-size: 10px; }
.l:hover text, .c:hover { font-weight: bold; stroke: #d84315; }
.a { fill: none; stroke: #607d8b; stroke-width: 1.2; stroke-opacity: 0.4; }
.a:hover { stroke: #d84315; stroke-width: 3; stroke-opacity: 1; }
</style>
)";
    add("<defs><marker id=\"p\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"6\" "
        "markerHeight=\"6\" "
        "orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#607d8b\"/></marker></defs>\n");
    add("<rect width=\"{:.0f}\" height=\"{:.0f}\" fill=\"#fafafa\"/>\n", width, layout_.height);
  }

  void legend() {
    std::uint64_t bytes = 0;
    std::size_t files = 0;
    std::size_t packages = 0;
    for (const Package& package : all_.packages) {
      bytes += package.bytes;
      files += package.files.size();
      packages += package.name.empty() ? 0 : 1;
    }
    add("<text class=\"h\" x=\"{0}\" y=\"36\">{1}</text>\n", margin,
        xml("What is in the jail " + lock_.name + ", and why"));
    add("<text x=\"{0}\" y=\"58\">{1} files, {2}, from {3} packages. Each box is a package, each line a "
        "file: its bar is "
        "the longer, the larger it is. An arrow leads to what is needed.</text>\n",
        margin, files, human_size(bytes), packages);
    add("<text x=\"{0}\" y=\"74\">Point at a file or an arrow to read the whole path and every "
        "reason.</text>\n",
        margin);
    double x = margin;
    for (const Look& look : looks) {
      add("<rect x=\"{0:.0f}\" y=\"84\" width=\"10\" height=\"10\" fill=\"{1}\"/><text x=\"{2:.0f}\" "
          "y=\"93\">{3}</text>\n",
          x, look.head, x + 15, look.legend);
      x += 170;
    }
  }

  void paint(const Arrow& arrow) {
    const Box& from = layout_.boxes[arrow.from];
    const Box& to = layout_.boxes[arrow.to];
    const double y1 = from.y + head / 2;
    const double y2 = to.y + head / 2;
    const bool forward = to.x > from.x;
    const double x1 = from.x + (to.x < from.x ? 0 : box_width);
    const double x2 = to.x + (forward ? 0 : box_width);
    const double bend = std::max(40.0, std::abs(x2 - x1) / 2);
    const double c1 = x1 + (to.x < from.x ? -bend : bend);
    const double c2 = x2 + (forward ? -bend : bend);
    std::string why;
    for (const std::string& line_of_why : arrow.why) why += "\n" + xml(line_of_why);
    add("<path class=\"a\" marker-end=\"url(#p)\" d=\"M{:.0f} {:.0f}C{:.0f} {:.0f} {:.0f} {:.0f} {:.0f} "
        "{:.0f}\"><title>{}{}</title></path>\n",
        x1, y1, c1, y1, c2, y2, x2, y2, xml(from.title + " → " + to.title), why);
  }

  void paint(const Box& box) {
    const Look& look = look_of(box);
    add("<g><rect class=\"b\" x=\"{0:.0f}\" y=\"{1:.0f}\" width=\"{2:.0f}\" height=\"{3:.0f}\" rx=\"4\"/>\n",
        box.x, box.y, box_width, box.height);
    add("<rect x=\"{0:.0f}\" y=\"{1:.0f}\" width=\"{2:.0f}\" height=\"{3:.0f}\" rx=\"4\" fill=\"{4}\"/>",
        box.x, box.y, box_width, head - 4, look.head);
    add("<text class=\"t\" x=\"{0:.0f}\" y=\"{1:.0f}\">{2}</text>", box.x + 8, box.y + 15,
        xml(shortened(box.title, 34)));
    add("<text class=\"s\" x=\"{0:.0f}\" y=\"{1:.0f}\">{2}</text>\n", box.x + 8, box.y + 28,
        xml(shortened(box.subtitle, 48)));
    double y = box.y + head;
    for (const std::string& note : box.notes) {
      add("<text x=\"{:.0f}\" y=\"{:.0f}\">{}</text>\n", box.x + padding + 3, y + 10,
          xml(shortened(note, 40)));
      y += line;
    }
    for (const LockEntry* entry : box.lines) {
      paint_line(*entry, look, box.x, y);
      y += line;
    }
    paint_cells(box, look, y);
    text_ += "</g>\n";
  }

  void paint_line(const LockEntry& entry, const Look& look, double x, double y) {
    constexpr double room = box_width - 2 * padding;
    const double share =
        largest_ == 0 ? 0 : std::sqrt(static_cast<double>(entry.size) / static_cast<double>(largest_));
    add("<g class=\"l\">{}<rect x=\"{:.0f}\" y=\"{:.0f}\" width=\"{:.1f}\" height=\"{:.0f}\" fill=\"{}\"/>",
        title_of(entry), x + padding, y, std::max(1.0, room * share), line - 2, look.bar);
    add("<text x=\"{:.0f}\" y=\"{:.0f}\">{}</text>", x + padding + 3, y + 10,
        xml(shortened(base_name(entry.path), 31)));
    if (entry.type == EntryType::file)
      add("<text class=\"r\" x=\"{:.0f}\" y=\"{:.0f}\">{}</text>", x + box_width - padding - 2, y + 10,
          size_of(entry));
    text_ += "</g>\n";
  }

  void paint_cells(const Box& box, const Look& look, double y) {
    const auto per_row = static_cast<std::size_t>((box_width - 2 * padding) / cell_step);
    for (std::size_t i = 0; i < box.cells.size(); ++i) {
      add("<rect class=\"c\" x=\"{:.0f}\" y=\"{:.0f}\" width=\"{}\" height=\"{}\" fill=\"{}\">{}</rect>\n",
          box.x + padding + static_cast<double>(i % per_row) * cell_step,
          y + static_cast<double>(i / per_row) * cell_step, cell, cell, look.bar, title_of(*box.cells[i]));
    }
  }

  const Lock& lock_;
  const Inventory& all_;
  const Layout& layout_;
  std::uint64_t largest_ = 0;
  std::string text_;
};

}  // namespace

std::string graph_svg(const Lock& lock) {
  const Inventory all = inventory_of(lock, true);
  const Layout layout = lay_out(lock, all);
  return Painter(lock, all, layout).run();
}

}  // namespace jail::views
