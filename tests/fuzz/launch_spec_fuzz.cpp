// Any bytes as launch.json: what jaild believes, it writes again as it was read.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "supervisor/spec/launch_spec.h"

using namespace jail;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto spec = launch_spec_from_json(text, "f");
  if (!spec) {
    if (spec.error().message.empty()) std::abort();
    return 0;
  }
  const auto again = launch_spec_from_json(to_json(*spec), "f");
  if (!again || !(*again == *spec)) std::abort();
  return 0;
}
