// The control protocol: what any process that reaches the socket could send, and what a broken jaild could
// answer.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "supervisor/control/protocol.h"

using namespace jail::control;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto request = request_from_json(text)) {
    const auto again = request_from_json(to_json(*request));
    if (!again || again->verb != request->verb || again->names != request->names) std::abort();
  }
  Answer answer;
  if (add_message(answer, text, true)) {
    for (const std::string& message : to_messages(answer))
      if (message.size() > max_message) std::abort();
    if (!answer_from_json(to_json(answer))) std::abort();
  }
  return 0;
}
