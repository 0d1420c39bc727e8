// What `jail init` has made, so that --undo removes that and nothing else: STATE/init/NAME.json. Written
// before anything is made, so that a run that dies leaves nothing that nobody knows of.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/spec/instance.h"

namespace jail::init {

/// One thing: "directory", "file" (with the hash of its content) or "unit" (a link to /dev/null), by its
/// path; "user" or "group", by its name.
struct Made {
  std::string kind;
  std::string what;
  std::string sha256;
};

struct Record {
  std::vector<Made> made;  ///< in the order of making

  [[nodiscard]] const Made* find(std::string_view kind, std::string_view what) const;
};

/// The records of all jails of an instance, locked for as long as this lives.
class Records {
 public:
  /// Where not `make`, a state directory that is not there is no trouble: there are no records then.
  [[nodiscard]] static Result<Records> open(const Instance& instance, bool make);

  /// Empty where `init` made nothing for this jail.
  [[nodiscard]] Result<std::optional<Record>> load(const std::string& name) const;
  [[nodiscard]] Result<void> save(const std::string& name, const Record& record) const;
  [[nodiscard]] Result<void> remove(const std::string& name) const;
  /// The name of a jail other than `name` whose record has this; empty if there is none.
  [[nodiscard]] Result<std::string> shared_with(const std::string& name, const std::string& kind,
                                                const std::string& what) const;

 private:
  Records(std::string path, UniqueFd dir) : path_(std::move(path)), dir_(std::move(dir)) {}
  std::string path_;
  UniqueFd dir_;
};

}  // namespace jail::init
