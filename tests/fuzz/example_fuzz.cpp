// Any bytes as an example's init.toml, and as the text that words are filled into: no crash, no hang, and no
// layout that leads out of the directory or past a problem.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "jailer/init/example.h"
#include "jailer/manifest/problems.h"
#include "jailer/manifest/toml_file.h"
#include "jailer/tree/root_dir.h"

using namespace jail;

namespace {

void demand_below(const std::string& path) {
  if (!tree::is_clean("/" + path)) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > manifest::max_file_size) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto filled = init::fill_in(text, {{"config", "/x"}, {"name", "@config@"}}, "f");
  if (filled && text.find('@') == std::string_view::npos && *filled != text) __builtin_trap();
  manifest::Problems problems;
  const auto root = manifest::parse_toml(text, "f.toml", problems);
  if (!root) return 0;
  const manifest::Key keys = init::example_keys();
  manifest::Binder binder(problems, keys, true);
  init::Example example;
  init::bind_example(binder, example, *root);
  if (!problems.empty()) {
    if (problems.error("").message.empty()) __builtin_trap();
    return 0;
  }
  for (const init::ExampleFile& file : example.files) {
    demand_below(file.path);
    if ((file.mode & ~0755U) != 0 || example.config.empty()) __builtin_trap();
  }
  for (const init::ExampleDirectory& directory : example.directories) demand_below(directory.path);
  for (const init::ExampleCertificate& certificate : example.certificates) {
    demand_below(certificate.cert);
    demand_below(certificate.key);
  }
  return 0;
}
