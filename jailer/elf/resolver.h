// Which files ld.so would load for a program, and why: glibc's search order, without running anything.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/error.h"

namespace jail::elf {

/// A symlink that a path ran over, so that the tree can repeat it: /lib -> usr/lib.
struct Hop {
  std::string path;    ///< absolute, below the root
  std::string target;  ///< as read
};

/// A path followed inside a root the way the kernel would after chroot: absolute links stay inside.
struct Located {
  std::string path;        ///< as asked for, absolute
  std::string real;        ///< every link resolved, below the root
  std::vector<Hop> hops;   ///< each link that was followed, in order
};

/// One candidate that was looked at for a needed name.
struct Tried {
  std::string path;
  std::string outcome;  ///< "found", "no such file", "wrong ELF class", "not an ELF file" ...
};

/// One object of the list that ld.so would make.
struct Object {
  std::string name;       ///< the name that asked for it (DT_NEEDED, or the program's path)
  std::string path;       ///< as ld.so --list prints it
  Located file;           ///< where that is
  std::string soname;     ///< DT_SONAME; may be empty
  std::string needed_by;  ///< path of the object whose entry loaded it; empty for the program
  std::string rule;       ///< how it was found: "rpath", "runpath", "ld.so.cache", "default directory", "absolute", "interpreter"
  std::vector<Tried> tried;
};

struct Closure {
  std::vector<Object> objects;       ///< in load order (breadth first); the program first, the loader where ld.so lists it
  std::string interpreter;           ///< PT_INTERP, as written; empty for a static program or a library
  std::optional<Located> interpreter_file;
  std::vector<std::string> imports;  ///< undefined dynamic symbols of all objects, sorted, without doubles
  bool is_static = false;
};

/// Resolves programs and libraries in one root; keeps what it has read (files, the cache) for the next call. The
/// program may be a dynamic or static executable or a shared library. Throws nothing; hostile input is an Error.
class Resolver {
 public:
  /// `root` is a directory ("/" for the running system). Nothing outside of it is read.
  [[nodiscard]] static Result<Resolver> open(const std::string& root);
  Resolver(Resolver&&) noexcept;
  Resolver& operator=(Resolver&&) noexcept;
  ~Resolver();

  /// All that ld.so would load for `path` (absolute, below the root). A library that cannot be found is an error that
  /// gives the chain (who needs it), and every place that was looked at.
  [[nodiscard]] Result<Closure> resolve(const std::string& path);

  /// Finds a library by soname as the program `for_path` would find it with dlopen (its own class and machine), or an
  /// absolute path; then its closure.
  [[nodiscard]] Result<Closure> resolve_library(const std::string& soname_or_path, const std::string& for_path);

  /// Follows `path` inside the root.
  [[nodiscard]] Result<Located> locate(const std::string& path) const;

 private:
  struct Impl;
  explicit Resolver(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace jail::elf
