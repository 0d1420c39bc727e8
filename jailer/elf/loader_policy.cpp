#include "jailer/elf/loader_policy.h"

#include <elf.h>

#include <algorithm>

namespace jail::elf {
namespace {

/// One loader that we know. Sources: glibc's sysdeps (shlib-versions, ldconfig.h, dl-hwcaps_subdirs.c) and
/// Debian's multiarch.
struct Row {
  Abi abi;
  const char* interpreter;
  const char* multiarch;  ///< Debian's tuple
  const char* platform;
  std::int32_t flags[2];  ///< entries of ld.so.cache; 0: no second kind
  const char* hwcaps;     ///< glibc-hwcaps subdirectories, best first
  /// Older subdirectories: names of the platform, of which a processor has one, and of its capabilities. A
  /// "?" is behind what only some processors have.
  const char* legacy_platforms;
  const char* legacy_capabilities;
  const char* legacy_bits;  ///< "BIT:NAME" of each in the hwcap of a cache entry
  const char* vdso = "linux-vdso.so.1";
};

constexpr Row kTable[] = {
    {{ELFCLASS64, ELFDATA2LSB, EM_X86_64},
     "/lib64/ld-linux-x86-64.so.2",
     "x86_64-linux-gnu",
     "x86_64",
     {0x303, 0},
     "x86-64-v4:x86-64-v3:x86-64-v2",
     "haswell? xeon_phi? x86_64",
     "avx512_1? x86_64",
     "1:x86_64 2:avx512_1 50:haswell 51:xeon_phi"},
    {{ELFCLASS32, ELFDATA2LSB, EM_386},
     "/lib/ld-linux.so.2",
     "i386-linux-gnu",
     "i686",
     {0x3, 0x1},
     "",
     "i686",
     "sse2?",
     "0:sse2 49:i686",
     "linux-gate.so.1"},
    {{ELFCLASS32, ELFDATA2LSB, EM_X86_64},
     "/libx32/ld-linux-x32.so.2",
     "x86_64-linux-gnux32",
     "x86_64",
     {0x803, 0},
     "x86-64-v4:x86-64-v3:x86-64-v2",
     "haswell? xeon_phi? x86_64",
     "avx512_1? x86_64",
     "1:x86_64 2:avx512_1 50:haswell 51:xeon_phi"},
    {{ELFCLASS64, ELFDATA2LSB, EM_AARCH64},
     "/lib/ld-linux-aarch64.so.1",
     "aarch64-linux-gnu",
     "aarch64",
     {0xa03, 0},
     "",
     "aarch64",
     "atomics?",
     "8:atomics"},
    {{ELFCLASS32, ELFDATA2LSB, EM_ARM},
     "/lib/ld-linux-armhf.so.3",
     "arm-linux-gnueabihf",
     "v7l",
     {0x903, 0},
     "",
     "v8l? v7l",
     "neon? vfp?",
     "6:vfp 12:neon"},
    {{ELFCLASS64, ELFDATA2LSB, EM_RISCV},
     "/lib/ld-linux-riscv64-lp64d.so.1",
     "riscv64-linux-gnu",
     "",
     {0x1003, 0},
     "",
     "",
     "",
     ""},
    {{ELFCLASS64, ELFDATA2LSB, EM_PPC64},
     "/lib64/ld64.so.2",
     "powerpc64le-linux-gnu",
     "power8",
     {0x503, 0},
     "power10:power9",
     "power10? power9? power8",
     "",
     "",
     "linux-vdso64.so.1"},
    {{ELFCLASS64, ELFDATA2MSB, EM_S390},
     "/lib/ld64.so.1",
     "s390x-linux-gnu",
     "z900",
     {0x403, 0},
     "z16:z15:z14:z13",
     "z16? z15? z14? z13? zEC12? z196? z10? z9-109? z990? z900",
     "",
     "",
     "linux-vdso64.so.1"},
};

/// The NUL-terminated string at `at`.
std::string_view string_at(std::string_view bytes, std::size_t at) {
  const std::string_view rest = bytes.substr(at);
  return rest.substr(0, std::min(rest.find('\0'), rest.size()));
}

bool has_string(std::string_view bytes, const std::string& text) {
  const std::string framed = std::string(1, '\0') + text + std::string(1, '\0');
  return bytes.find(framed) != std::string_view::npos;
}

/// The loader's array of default directories: at least two strings in a row that begin and end with a slash,
/// one of them
/// "/lib/", "/usr/lib/" or the like.
std::vector<std::string> find_system_dirs(std::string_view bytes) {
  constexpr std::size_t max_directory = 200;
  for (std::size_t at = bytes.find(std::string_view("\0/", 2)); at != std::string_view::npos;
       at = bytes.find(std::string_view("\0/", 2), at + 1)) {
    std::vector<std::string> run;
    for (std::size_t next = at + 1; next < bytes.size() && bytes[next] == '/' && run.size() < 16;) {
      const std::string_view text = string_at(bytes, next);
      if (text.size() < 3 || text.size() > max_directory || text.back() != '/') break;
      run.emplace_back(text);
      next += text.size() + 1;
    }
    const bool library = std::any_of(run.begin(), run.end(), [](const std::string& directory) {
      return directory.rfind("/lib", 0) == 0 || directory.find("/lib") != std::string::npos;
    });
    if (run.size() < 2 || !library) continue;
    // The array may follow upon code instead of a string's end: then its first entry, "/lib64/" before
    // "/usr/lib64/", was not seen as one.
    const std::string first = run.front().starts_with("/usr/") ? run.front().substr(4) : std::string{};
    if (!first.empty() && bytes.substr(0, at).ends_with(first)) run.insert(run.begin(), first);
    return run;
  }
  return {};
}

std::string find_cache(std::string_view bytes) {
  constexpr std::string_view tail("/ld.so.cache\0", 13);
  const std::size_t at = bytes.find(tail);
  if (at == std::string_view::npos) return {};
  const std::size_t start = bytes.rfind('\0', at);
  if (start == std::string_view::npos || at - start > 200 || bytes[start + 1] != '/') return {};
  return std::string(string_at(bytes, start + 1));
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> result;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    result.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return result;
}

/// "name/" of a component of Row's legacy lists, with the capability that it stands for: "haswell?" is one,
/// "x86_64" is there on every processor.
Subdirectory legacy_component(std::string text) {
  const bool some = text.back() == '?';
  if (some) text.pop_back();
  Subdirectory component{text + "/", {}};
  if (some) component.capabilities.push_back(std::move(text));
  return component;
}

/// All paths with `component` in front, then those without.
std::vector<Subdirectory> with_and_without(const std::vector<Subdirectory>& components,
                                           const std::vector<Subdirectory>& paths) {
  std::vector<Subdirectory> result;
  for (const Subdirectory& component : components) {
    for (const Subdirectory& path : paths) {
      Subdirectory& joined = result.emplace_back(component);
      joined.name += path.name;
      joined.capabilities.insert(joined.capabilities.end(), path.capabilities.begin(),
                                 path.capabilities.end());
    }
  }
  result.insert(result.end(), paths.begin(), paths.end());
  return result;
}

/// glibc up to 2.36 also tries tls/, the platform, and capability names, in all combinations (dl-hwcaps.c).
std::vector<Subdirectory> legacy_subdirectories(const Row& row) {
  std::vector<Subdirectory> paths{{}};
  std::vector<std::string> words = split(row.legacy_capabilities, ' ');
  for (auto word = words.rbegin(); word != words.rend(); ++word)
    paths = with_and_without({legacy_component(*word)}, paths);
  std::vector<Subdirectory> platforms;
  for (const std::string& word : split(row.legacy_platforms, ' '))
    platforms.push_back(legacy_component(word));
  paths = with_and_without({{"tls/", {}}}, with_and_without(platforms, paths));
  paths.pop_back();  // the directory itself
  return paths;
}

std::map<unsigned, std::string> legacy_bits(const Row& row) {
  std::map<unsigned, std::string> bits{{63, "tls/"}};
  for (const std::string& word : split(row.legacy_bits, ' ')) {
    const std::vector<std::string> parts = split(word, ':');
    bits.emplace(static_cast<unsigned>(std::stoul(parts[0])), parts[1] + "/");
  }
  return bits;
}

/// "2.36" and older; the loader tells its release since 2.33, and the word is in all.
bool has_legacy_subdirectories(std::string_view loader) {
  constexpr std::string_view words = "stable release version 2.";
  if (!has_string(loader, "tls")) return false;
  const std::size_t at = loader.find(words);
  if (at == std::string_view::npos) return true;
  int release = 0;
  for (const char c : loader.substr(at + words.size(), 3)) {
    if (c < '0' || c > '9') break;
    release = release * 10 + (c - '0');
  }
  return release <= 36;
}

std::vector<Subdirectory> hwcaps_subdirectories(std::string_view names) {
  std::vector<Subdirectory> result;
  for (const std::string& name : split(names, ':')) result.push_back({"glibc-hwcaps/" + name + "/", {name}});
  return result;
}

/// "x86-64-v4:x86-64-v3:x86-64-v2" as this loader has it (later ones know more), else the table's.
std::string find_hwcaps(std::string_view bytes, std::string_view known) {
  if (known.empty()) return {};
  const std::string_view last =
      known.substr(known.rfind(':') + 1);  // the oldest level: every loader ends with it
  const std::string framed = std::string(last) + std::string(1, '\0');
  for (std::size_t at = bytes.find(framed); at != std::string_view::npos; at = bytes.find(framed, at + 1)) {
    const std::size_t start = bytes.rfind('\0', at);
    if (start == std::string_view::npos || at - start > 200) continue;
    const std::string_view text = string_at(bytes, start + 1);
    if (text.find(':') != std::string_view::npos && text.find('/') == std::string_view::npos)
      return std::string(text);
  }
  return std::string(known);
}

const Row* find_row(const Abi& abi) {
  const auto* row =
      std::find_if(std::begin(kTable), std::end(kTable), [&](const Row& r) { return r.abi == abi; });
  return row == std::end(kTable) ? nullptr : row;
}

}  // namespace

LoaderPolicy default_policy(const Abi& abi) {
  LoaderPolicy policy;
  policy.abi = abi;
  policy.lib = abi.elf_class == ELFCLASS64 ? "lib64" : "lib";
  if (const Row* row = find_row(abi)) {
    policy.interpreter = row->interpreter;
    policy.lib = std::string("lib/") + row->multiarch;
    policy.system_dirs = {"/" + policy.lib + "/", "/usr/" + policy.lib + "/"};
    policy.platform = row->platform;
    policy.vdso = row->vdso;
    for (const std::int32_t flags : row->flags) {
      if (flags != 0) policy.cache_flags.push_back(flags);
    }
    policy.subdirectories = hwcaps_subdirectories(row->hwcaps);
  }
  policy.system_dirs.insert(policy.system_dirs.end(), {"/lib/", "/usr/lib/"});
  policy.subdirectories.push_back({});
  return policy;
}

LoaderPolicy for_processor(LoaderPolicy policy, const Capabilities& capabilities) {
  const auto has = [&](const std::string& name) {
    return std::find(capabilities.begin(), capabilities.end(), name) != capabilities.end();
  };
  for (Subdirectory& subdirectory : policy.subdirectories) {
    auto& wanted = subdirectory.capabilities;
    if (std::all_of(wanted.begin(), wanted.end(), has)) wanted.clear();
  }
  return policy;
}

Capabilities capabilities_for(const LoaderPolicy& policy, const std::string& subdirectory) {
  Capabilities result;
  const auto& all = policy.subdirectories;
  const auto found = std::find_if(
      all.begin(), all.end(), [&](const Subdirectory& other) { return other.name == subdirectory + "/"; });
  const bool level = subdirectory.starts_with("glibc-hwcaps/");
  for (auto one = found; one != all.end(); ++one) {
    if (one != found && !(level && one->name.starts_with("glibc-hwcaps/"))) break;
    result.insert(result.end(), one->capabilities.begin(), one->capabilities.end());
  }
  return result;
}

LoaderPolicy read_policy(const Abi& abi, std::string_view loader) {
  LoaderPolicy policy = default_policy(abi);
  if (loader.empty()) return policy;
  std::vector<std::string> directories = find_system_dirs(loader);
  if (!directories.empty()) {
    policy.system_dirs = std::move(directories);
    policy.from_loader = true;
    // $LIB is the first system directory without its slashes (slibdir): "lib/x86_64-linux-gnu", "lib64".
    const std::string& first = policy.system_dirs.front();
    const std::string lib = first.substr(1, first.size() - 2);
    policy.lib = has_string(loader, lib) ? lib : policy.lib;
  }
  if (std::string cache = find_cache(loader); !cache.empty()) policy.cache = std::move(cache);
  if (const Row* row = find_row(abi)) {
    policy.subdirectories = hwcaps_subdirectories(find_hwcaps(loader, row->hwcaps));
    policy.legacy = has_legacy_subdirectories(loader);
    if (policy.legacy) {
      policy.cache_bits = legacy_bits(*row);
      const std::vector<Subdirectory> legacy = legacy_subdirectories(*row);
      policy.subdirectories.insert(policy.subdirectories.end(), legacy.begin(), legacy.end());
    }
    policy.subdirectories.push_back({});
  }
  return policy;
}

}  // namespace jail::elf
