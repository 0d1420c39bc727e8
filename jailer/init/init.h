// `jail init`: from a manifest and its example to a configuration that the jail runs with, in a directory of
// its own, and back again.
//
// Nothing that is there is replaced, and all that is made is written down first (record.h). So a run that was
// interrupted is completed by the next, a second run changes nothing, and --undo takes away what init made
// and nobody has changed since. What lies outside of --home is left alone where that is given.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/spec/instance.h"

namespace jail::init {

enum class Outcome : std::uint8_t {
  made,     ///< or would be
  there,    ///< as the example has it
  kept,     ///< there, and not as the example has it; the note says why
  left,     ///< the admin's to do; the note says how
  stopped,  ///< a unit, or would be
  removed,  ///< or would be
};

/// One thing and what became of it.
struct Item {
  std::string
      kind;  ///< directory, file, drop-in, certificate, key, user, group, unit, script, volume, package
  std::string what;  ///< its path or name
  Outcome outcome = Outcome::there;
  std::string note;
};

struct Options {
  bool dry_run = false;
  bool keep_units = false;
  bool test_certificate = false;
  std::string host;  ///< of the test certificate; empty: the example's
  std::function<void(const Item&)> tell;
};

/// Lays out the example of the manifest `name_or_path`, telling each thing as it is done. What to change and
/// to run next is returned, a line each.
[[nodiscard]] Result<std::vector<std::string>> lay_out(const Instance& instance,
                                                       const std::string& name_or_path,
                                                       const Options& options);

/// Takes away what lay_out() made for the jail `name`. Exit::no_input where it made nothing; Exit::busy while
/// the jail runs.
[[nodiscard]] Result<std::vector<std::string>> undo(const Instance& instance, const std::string& name,
                                                    const Options& options);

}  // namespace jail::init
