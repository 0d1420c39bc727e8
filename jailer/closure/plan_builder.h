// Collects the entries of a plan, and all that is wrong with it.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "jailer/closure/plan.h"
#include "jailer/closure/source_root.h"
#include "jailer/manifest/model.h"
#include "supervisor/base/error.h"

namespace jail {

/// Where in the manifest something was asked for: the dotted path that Manifest::where() takes
/// ("tree.binaries[0]").
using Place = std::string;

class PlanBuilder {
 public:
  /// All are borrowed for the builder's life. Links of the source's top level (/lib -> usr/lib) become the
  /// tree's.
  PlanBuilder(Plan& plan, const manifest::Manifest& manifest, const SourceRoot& source);

  /// Adds `entry`, the missing parents, and returns its path in the tree: links of the tree on the way are
  /// followed
  /// ("/lib/x" is put at "/usr/lib/x"). An entry that is there already gets the new reason; one that
  /// contradicts it is a problem.
  std::string put(Entry entry, const Place& place);

  std::string put_directory(const std::string& path, Reason why, const Place& place);
  std::string put_link(const std::string& path, const std::string& target, Reason why, const Place& place);
  std::string put_text(const std::string& path, std::string content, Reason why, const Place& place);

  /// Directory or empty file that something is mounted on; gives way to any entry of the same type.
  void put_mount_point(const std::string& path, bool is_directory, Reason why, const Place& place);

  [[nodiscard]] const Entry* find(const std::string& path) const;
  /// What is in the directory `path` so far.
  [[nodiscard]] std::vector<std::string> names_in(const std::string& path) const;

  /// Follows all links of `path` in the tree as the daemon would. `path` need not exist.
  struct Followed {
    std::string path;
    bool escapes = false;  ///< a ".." went above the root, or there are too many links
  };
  [[nodiscard]] Followed follow(const std::string& path, bool last = true);

  /// Notes a problem; the plan then fails. With lenient() it is a warning.
  void problem(const Place& place, const std::string& text);
  void problem(const Place& place, const Error& error);
  void warn(const Place& place, const std::string& text);
  void note(std::string text) { plan_.notes.push_back(std::move(text)); }
  void closure(const std::string& program, std::vector<std::string> files) {
    plan_.closures.try_emplace(program, std::move(files));
  }
  void probe(PlannedProbe probe) { plan_.probes.push_back(std::move(probe)); }
  void ignore(const std::vector<std::string>& patterns) {
    plan_.ignore.insert(plan_.ignore.end(), patterns.begin(), patterns.end());
  }

  /// Until the end of its life, problems are warnings: for what joins a plan without having been asked for.
  class Lenient {
   public:
    explicit Lenient(PlanBuilder& builder, bool on = true) : builder_(builder), was_(builder.lenient_) {
      builder_.lenient_ = was_ || on;
    }
    ~Lenient() { builder_.lenient_ = was_; }
    Lenient(const Lenient&) = delete;
    Lenient& operator=(const Lenient&) = delete;

   private:
    PlanBuilder& builder_;
    bool was_;
  };

  /// All problems as one Error, if there are any.
  [[nodiscard]] Result<void> finish() const;

 private:
  void put_parents(const std::string& path, const Place& place);
  void join(Entry& there, Entry&& entry, const Place& place);
  void add_reasons(Entry& there, std::vector<Reason>&& reasons);

  Plan& plan_;
  const manifest::Manifest& manifest_;
  std::map<std::string, std::string> merged_;  ///< top-level links of the source: "/lib" -> "usr/lib"
  std::set<std::string> weak_;  ///< entries that only stand because something else is below or on them
  std::vector<std::string> problems_;
  bool lenient_ = false;
};

/// "needed libc.so.6 by /usr/sbin/named": a reason in words.
[[nodiscard]] std::string in_words(const Reason& reason);

}  // namespace jail
