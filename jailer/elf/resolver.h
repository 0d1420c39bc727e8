// Which files ld.so would load for a program, and why: glibc's search order, without running anything.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "jailer/elf/loader_policy.h"
#include "jailer/elf/locate.h"
#include "supervisor/base/error.h"

namespace jail::elf {

/// One candidate that was looked at for a needed name.
struct Tried {
  std::string path;
  std::string outcome;  ///< "found", "no such file", "wrong ELF class", "not an ELF file" ...
};

/// How a file stands in ld.so.cache, to stand there again in a cache of ours.
struct CacheLine {
  std::string hwcap_name;   ///< "x86-64-v3": of a glibc-hwcaps subdirectory
  std::uint64_t hwcap = 0;  ///< without the number of that name in its cache; 0: for every processor
};

/// A build of a library for some processors, which ld.so on those would load in place of the object's own.
struct Variant {
  std::string path;
  std::string subdirectory;  ///< "glibc-hwcaps/x86-64-v3"
  Located file;
  std::optional<CacheLine> cached;  ///< where the cache led to it
};

/// One object of the list that ld.so would make.
struct Object {
  std::string name;       ///< the name that asked for it (DT_NEEDED, or the program's path)
  std::string path;       ///< as ld.so --list prints it
  Located file;           ///< where that is
  std::string soname;     ///< DT_SONAME; may be empty
  std::string needed_by;  ///< path of the object whose entry loaded it; empty for the program
  std::string rule;  ///< how it was found: "program", "rpath", "runpath", "ld.so.cache", "default directory",
                     ///< "absolute", "interpreter"
  bool in_default_directory = false;  ///< found there without a cache, too
  std::optional<CacheLine> cached;    ///< where the cache led to it
  std::vector<Tried> tried;
  std::vector<Variant> variants;          ///< a tree for all processors holds these too
  std::vector<std::string> dlopen_notes;  ///< JSON of each .note.dlopen (UAPI.12), unchecked
};

struct Closure {
  std::vector<Object>
      objects;  ///< in load order (breadth first); the program first, the loader where ld.so lists it
  std::string interpreter;  ///< PT_INTERP, as written; empty for a static program or a library
  std::optional<Located> interpreter_file;
  /// Undefined dynamic symbols of all objects, sorted, without doubles; see Resolver::watch().
  std::vector<std::string> imports;
  std::vector<std::string>
      notes;  ///< findings that stop nothing: relative search paths, audit libraries, stale cache entries
  bool is_static = false;
  std::int32_t cache_flags = 0;  ///< of the entries that its loader takes from ld.so.cache; 0: not known
  bool big_endian = false;
  /// What only some processors would load besides (a variant may need what the baseline does not), in their
  /// load order; the variants themselves stand with their objects.
  std::vector<Object> elsewhere;
  /// The libraries that a program has as DT_AUDIT and DT_DEPAUDIT, and all that they need: ld.so loads them
  /// first, each into a namespace of its own. One that cannot be loaded stops nothing; it is in `notes`.
  std::vector<Object> audit;
};

/// What to put into a Closure beyond the list; each costs time.
struct Detail {
  bool imports = true;
  bool tried = true;
  /// The list of a processor with these capabilities (LoaderPolicy has their names), and of no other. Without
  /// it: the baseline's list, what others load beside it, and of a library that only some processors find the
  /// least demanding build.
  const std::vector<std::string>* processor = nullptr;
  /// Of a set-user-ID or set-group-ID program, `notes` are to tell what ld.so does otherwise for a user who
  /// gains by that (AT_SECURE).
  bool set_id = true;
};

/// Resolves programs and libraries in one root; keeps what it has read (files, the cache) for the next call.
/// The program may be a dynamic or static executable or a shared library. Throws nothing; hostile input is an
/// Error. Not modelled, on purpose: LD_* variables, /etc/ld.so.preload. A path list element that
/// is relative or empty (the current directory) finds nothing here; it is in `notes`.
class Resolver {
 public:
  /// `root` is a directory ("/" for the running system). Nothing outside of it is read.
  /// Every look is noted in `looks`, which must outlive this.
  [[nodiscard]] static Result<Resolver> open(const std::string& root, Looks* looks = nullptr);
  Resolver(Resolver&&) noexcept;
  Resolver& operator=(Resolver&&) noexcept;
  ~Resolver();

  /// Closure::imports is to hold no other symbols than these: for a caller who knows what it looks for, as a
  /// large closure imports tens of thousands. To be called before anything is resolved.
  void watch(Symbols symbols);

  /// Answers as an earlier resolver of this root did, of which memory() was this, for as long as all that it
  /// had looked at is what it was. After watch(); needs the `looks` of open(), which must be this resolver's
  /// alone.
  void recall(std::string_view memory);
  /// For recall(). Empty where it is worth nothing.
  [[nodiscard]] std::string memory() const;

  /// All that ld.so would load for `path` (absolute, below the root). A library that cannot be found is an
  /// error that gives the chain (who needs it), and every place that was looked at.
  [[nodiscard]] Result<Closure> resolve(const std::string& path, Detail detail = {});

  /// Finds a library by soname as the program `for_path` would find it with dlopen (its own class and
  /// machine), or an absolute path; then its closure, the library first. An object that the program has
  /// loaded already is itself. `by` is the path of the object of that closure that would call dlopen (its
  /// search paths count); empty: the program itself.
  [[nodiscard]] Result<Closure> resolve_library(const std::string& soname_or_path,
                                                const std::string& for_path, Detail detail = {},
                                                const std::string& by = {});

  /// What the loader of `for_path` was compiled with: its default directories, $LIB and so on.
  [[nodiscard]] Result<LoaderPolicy> policy(const std::string& for_path);

  /// Follows `path` inside the root.
  [[nodiscard]] Result<Located> locate(const std::string& path) const;

 private:
  /// As resolve() and resolve_library(), by heart where that is possible.
  template <class Work>
  [[nodiscard]] Result<Closure> by_heart(const std::string& question, const Detail& detail, const Work& work);
  struct Impl;
  explicit Resolver(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace jail::elf
