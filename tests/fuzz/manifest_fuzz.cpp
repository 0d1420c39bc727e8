// Any bytes as a manifest, as a drop-in over it, and as a template: no crash, no hang, and problems for what
// is wrong.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "jailer/manifest/binder.h"
#include "jailer/manifest/check.h"
#include "jailer/manifest/merge.h"
#include "jailer/manifest/reader.h"
#include "jailer/manifest/render.h"
#include "jailer/manifest/schema.h"
#include "jailer/manifest/toml_file.h"

using namespace jail::manifest;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > max_file_size) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  // Behind the first NUL byte, if there is one, comes a drop-in.
  const std::size_t cut = text.find('\0');
  Problems problems;
  auto base = parse_toml(text.substr(0, cut), "f.toml", problems);
  if (!base) return 0;
  const Key keys = manifest_keys();
  if (cut != std::string_view::npos) {
    auto overlay = parse_toml(text.substr(cut + 1), "f.toml.d/f.toml", problems);
    if (overlay) {
      substitute(*overlay, "instance", problems);
      merge(*base, *overlay, keys, problems);
    }
  }
  Binder binder(problems, keys, true);
  Manifest manifest;
  manifest.name = "f";
  bind_manifest(binder, manifest, *base);
  manifest.origins = binder.origins();
  fill_defaults(manifest);
  check(manifest, binder, "f.toml", problems);
  // What is broken is shown by nobody, but must not be what brings the printer down.
  if (to_text(manifest, true).empty() || to_json(manifest).empty()) __builtin_trap();
  if (!problems.empty() && problems.error("").message.empty()) __builtin_trap();
  return 0;
}
