// Every file is opened, read and kept once, whatever the number of paths that lead to it.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "jailer/elf/elf_file.h"
#include "jailer/elf/locate.h"

namespace jail::elf {

/// A regular file of the root, by inode.
struct ParsedFile {
  Header header;
  std::optional<ElfFile> elf;  ///< empty: see `problem`
  std::string problem;         ///< why it could not be read, without its name
  std::string hint;
  std::optional<std::vector<std::string>> imports;  ///< filled by FileStore::imports()
  RootTree::Found where;                            ///< the first path that led here
};

class FileStore {
 public:
  explicit FileStore(RootTree tree) : tree_(std::move(tree)) {}

  [[nodiscard]] const RootTree::Found& find(const std::string& path) { return tree_.find(path); }
  /// The file that `found` (a regular one) stands for.
  [[nodiscard]] ParsedFile& parsed(const RootTree::Found& found);
  /// Only these count as imports, from the first call of imports() on.
  void watch(Symbols symbols) { watched_ = std::move(symbols); }
  /// Its undefined dynamic symbols, as far as they count, read at the first call.
  [[nodiscard]] Result<const std::vector<std::string>*> imports(ParsedFile& file);
  /// All bytes of a regular file that find() has given.
  [[nodiscard]] Result<std::string> contents(const RootTree::Found& found, std::size_t limit) const;
  /// The first 257 bytes or less: enough to tell a script (script.h).
  [[nodiscard]] Result<std::string> beginning(const RootTree::Found& found) const;
  [[nodiscard]] const std::string& root() const { return tree_.root(); }

 private:
  struct IdHash {
    std::size_t operator()(const std::pair<dev_t, ino_t>& id) const noexcept {
      return std::hash<ino_t>()(id.second) ^ (std::hash<dev_t>()(id.first) << 1);
    }
  };
  RootTree tree_;
  std::optional<Symbols> watched_;
  std::unordered_map<std::pair<dev_t, ino_t>, std::unique_ptr<ParsedFile>, IdHash> files_;
};

}  // namespace jail::elf
