// One needed name: every place where ld.so looks, in its order (rules G7-G15, G26-G28).
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "jailer/elf/file_store.h"
#include "jailer/elf/ld_cache.h"
#include "jailer/elf/loader_policy.h"
#include "jailer/elf/resolver.h"

namespace jail::elf {

/// The search paths that count for one object's needs.
struct Requester {
  std::vector<const std::vector<std::string>*>
      rpaths;  ///< its own, its loader's, and so on; then the program's
  const std::vector<std::string>* runpath = nullptr;
  bool no_default_libraries = false;
};

/// What a search ended with.
struct Outcome {
  enum class Kind : std::uint8_t { missing, found, fatal };
  Kind kind = Kind::missing;
  std::string path;  ///< of the file found, or of the one that is fatal
  std::string rule;
  std::string reason;  ///< for fatal: why ld.so gives up
  ParsedFile* file = nullptr;
  const RootTree::Found* where = nullptr;
  std::vector<Variant> variants;
  std::optional<CacheLine> cached;
  std::vector<Tried> tried;
  std::vector<std::string> notes;
};

/// The search of one loader in one root.
class Search {
 public:
  Search(FileStore& store, LoaderPolicy policy, const LdCache* cache)
      : store_(store), policy_(std::move(policy)), cache_(cache) {}

  [[nodiscard]] const LoaderPolicy& policy() const { return policy_; }
  /// A name without a slash. `trace` records the candidates of RPATH and RUNPATH too.
  [[nodiscard]] Outcome find(const std::string& name, const Requester& who, bool trace);
  /// Where only variants exist, the least demanding one is what some processors would load.
  void settle_for_variant(Outcome& outcome);
  /// A path as it is, no search.
  [[nodiscard]] Outcome open(const std::string& path);

 private:
  enum class Step : std::uint8_t { go_on, stop_list, done };
  [[nodiscard]] Step look(const std::string& path, const char* rule, Outcome& outcome, bool trace);
  [[nodiscard]] Step walk(const std::vector<std::string>& directories, const std::string& name,
                          const char* rule, Outcome& outcome, bool trace);
  /// What an entry of the cache is to the processors that this is for, and how good: the lower, the better.
  struct Use {
    enum class Kind : std::uint8_t { never, variant, taken };
    Kind kind = Kind::never;
    std::size_t level = 0;
  };
  [[nodiscard]] Use use_of(const CacheEntry& entry) const;
  [[nodiscard]] Use use_of_legacy(std::uint64_t hwcap) const;
  [[nodiscard]] std::string subdirectory_of(const CacheEntry& entry) const;
  [[nodiscard]] bool is_for_loader(const CacheEntry& entry) const;
  [[nodiscard]] const CacheEntry* choose(const std::string& name) const;
  void add_cached_variants(const std::string& name, Outcome& outcome);
  [[nodiscard]] Step look_in_cache(const std::string& name, bool no_default_libraries, Outcome& outcome);
  [[nodiscard]] std::optional<std::size_t> level_of(const std::string& name) const;
  [[nodiscard]] bool is_usable(const std::string& path, const RootTree::Found** where);
  [[nodiscard]] const std::vector<const Subdirectory*>& subdirectories_of(const std::string& directory);
  [[nodiscard]] const Outcome& find_by_default(const std::string& name, bool no_default_libraries);

  FileStore& store_;
  LoaderPolicy policy_;
  const LdCache* cache_;
  std::unordered_map<std::string, std::vector<const Subdirectory*>> existing_;
  std::unordered_map<std::string, Outcome> defaults_[2];  ///< by name; [1]: under DF_1_NODEFLIB
};

}  // namespace jail::elf
