// An example: what stands in examples/NAME beside a manifest, and in its init.toml says how `jail init` lays
// it out. contrib/man/jail-init.toml.5 says what each key means; keep the two in step.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jailer/manifest/binder.h"
#include "jailer/manifest/model.h"
#include "supervisor/base/error.h"
#include "supervisor/spec/instance.h"

namespace jail::init {

/// A file to lay out. It belongs to root. Identity: `path`.
struct ExampleFile {
  std::string path;                 ///< relative to the directory that is laid out
  std::string from;                 ///< relative to the example; default: `path`
  std::optional<std::string> text;  ///< its content, in place of `from`
  unsigned mode = 0644;
  std::string group = "root";
};

/// A directory in the one that is laid out. It belongs to root. Identity: `path`.
struct ExampleDirectory {
  std::string path;
  unsigned mode = 0755;
  std::string group = "root";
};

/// A certificate and its key that the example's configuration wants. Identity: `cert`.
struct ExampleCertificate {
  std::string cert;
  std::string key;
  std::string host = "localhost";  ///< whose name it bears, unless told otherwise
  unsigned mode = 0600;            ///< of the key
  std::string group = "root";      ///< of the key
};

struct Example {
  std::string folder;   ///< where it is: for messages
  std::string config;   ///< the `to` of the [[config]] whose place the directory takes; may be empty
  std::string drop_in;  ///< a file of the example that becomes part of the drop-in; may be empty
  std::vector<ExampleDirectory> directories;
  std::vector<ExampleFile> files;
  std::vector<ExampleCertificate> certificates;
  std::vector<std::string> units;  ///< of the distribution, in whose place the jail runs
  std::vector<std::string> next;   ///< what to change, a sentence each

  std::vector<std::string> contents;  ///< of `files`, in their order
  std::string drop_in_text;           ///< of `drop_in`
};

/// Reads the example of the manifest `name_or_path`, all of its files included. Every problem of its
/// init.toml at once (Exit::manifest); Exit::no_input where there is no example, with the places that were
/// looked at.
[[nodiscard]] Result<Example> load_example(const Instance& instance, const std::string& name_or_path,
                                           const manifest::Manifest& manifest);

/// All keys of an init.toml, and these as paths: "file[].mode".
[[nodiscard]] manifest::Key example_keys();
[[nodiscard]] std::vector<std::string> example_key_paths();

/// Binds a whole init.toml, and checks what its values say together.
void bind_example(manifest::Binder& binder, Example& example, const manifest::Value& root);

/// `text` with each @WORD@ (small letters and '_') replaced by what `words` has for it. Exit::manifest, with
/// `shown` in front, for one that it does not have.
struct Word {
  std::string_view name;
  std::string value;
};
[[nodiscard]] Result<std::string> fill_in(std::string_view text, const std::vector<Word>& words,
                                          const std::string& shown);

}  // namespace jail::init
