// One program's namespace: the objects that ld.so would hold, who loaded them, and by which names they are
// known.
#pragma once

#include <deque>
#include <list>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "jailer/elf/search.h"
#include "jailer/elf/tokens.h"

namespace jail::elf {

/// An object of the namespace.
struct Node {
  ParsedFile* file = nullptr;
  const RootTree::Found* where = nullptr;
  std::string name;
  std::string path;
  std::string rule;
  std::string origin;
  const Node* loader = nullptr;  ///< whose entry loaded it first
  std::vector<Tried> tried;
  std::vector<Variant> variants;
  std::optional<CacheLine> cached;
  std::vector<std::string> rpath;
  std::vector<std::string> runpath;
};

/// A need that nothing satisfied.
struct Missing {
  std::string name;
  const Node* needed_by = nullptr;
  std::vector<Tried> tried;
};

/// Loads objects as ld.so does, breadth first. Use one per program: start(), then load_needs().
class Session {
 public:
  struct Mode {
    bool trace = false;
    bool any_processor = false;  ///< a library that only variants provide counts as found
    bool secure = false;         ///< the program gives its user more than he has (AT_SECURE)
  };
  Session(Search& search, Mode mode) : search_(search), mode_(mode) {}

  /// The program (or library) itself; `origin_path` is the path whose directory is its $ORIGIN.
  Node& start(const std::string& path, const std::string& origin_path, ParsedFile& file,
              const RootTree::Found& where);
  /// The loader, which is there before anything is needed: by PT_INTERP's path, its soname and its file's
  /// name.
  void add_interpreter(const std::string& path, ParsedFile& file, const RootTree::Found& where);

  /// What `name`, asked for by `by`, stands for: an object that is there already, or a new one. nullptr: not
  /// found
  /// (`missing` tells more).
  [[nodiscard]] Result<Node*> map(const std::string& name, Node& by, Missing& missing);
  /// The search list of `first`: its needs, their needs, and so on. What is not found goes to missing().
  /// An error is a file at which ld.so gives up; it may have missing() something before.
  [[nodiscard]] Result<std::vector<Node*>> load_needs(Node& first);
  /// What the program has as DT_AUDIT, and its needs, in a namespace of their own: a session that has loaded
  /// nothing else.
  [[nodiscard]] Result<std::vector<Node*>> load_audit_library(const std::string& name);
  [[nodiscard]] const std::vector<Missing>& missing() const { return missing_; }
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }
  /// The subdirectories of the variants that were met.
  [[nodiscard]] const std::set<std::string>& subdirectories() const { return subdirectories_; }

  /// Every symbol version that the objects ask for must be defined (rule G30).
  [[nodiscard]] Result<void> check_versions(const std::vector<Node*>& objects);
  /// No object may ask for more than the processor has; where any processor may come, that is a note.
  [[nodiscard]] Result<void> check_processor(const std::vector<Node*>& objects);
  /// "/lib/libx.so <- /usr/bin/prog".
  [[nodiscard]] static std::string chain_of(const Node* node);

 private:
  struct Entry {
    Node* node = nullptr;
    bool done = false;
  };
  using Order = std::list<Entry>;
  Node& add(Node node);
  void know(const std::string& name, Node& node) { names_.emplace(name, &node); }
  [[nodiscard]] Tokens tokens_of(const Node& node) const;
  [[nodiscard]] Requester requester(const Node& by) const;
  [[nodiscard]] Result<void> check_loadable(const Outcome& outcome, const std::string& name,
                                            const Node& by) const;
  [[nodiscard]] Result<void> add_dependency(const Dependency& dependency, Order::iterator& owner,
                                            Order& order);
  void place_filtee(Node& filtee, Order::iterator& owner, Order& order);
  [[nodiscard]] Result<std::string> expand_name(const Dependency& dependency, const Node& by) const;
  void note(std::string text);

  Search& search_;
  Mode mode_;
  std::deque<Node> nodes_;
  Node* program_ = nullptr;
  std::unordered_map<std::string, Node*> names_;
  std::unordered_map<const ParsedFile*, Node*> files_;
  std::unordered_set<const Node*> listed_;
  std::vector<Missing> missing_;
  std::vector<std::string> notes_;
  std::set<std::string> subdirectories_;
};

}  // namespace jail::elf
