// All that is wrong with a set of files, collected while reading goes on, and told at once.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "jailer/manifest/model.h"
#include "jailer/manifest/reader.h"

namespace jail::manifest {

/// "named.toml:14:3: ", "named.toml: " without a line, nothing without a file.
[[nodiscard]] std::string place(const Origin& origin);

class Problems {
 public:
  /// Files are reported in the order in which they are announced here; others come last.
  void announce(const std::string& file);

  /// The same problem at the same place is kept once: files are checked alone and again when merged.
  void add(const Origin& origin, const std::string& text);

  [[nodiscard]] bool empty() const { return found_.empty(); }

  /// By file, line and column; after a hundred only their number.
  [[nodiscard]] std::vector<Problem> list() const;

  /// As the Error that load() returns: Exit::manifest, one problem a line.
  [[nodiscard]] Error error(std::string hint) const;

 private:
  struct Found {
    std::size_t file;
    unsigned line;
    unsigned column;
    std::string text;
    auto operator<=>(const Found&) const = default;
  };
  std::map<std::string, std::size_t> files_;
  std::set<Found> found_;
};

}  // namespace jail::manifest
