// Any bytes as a datagram of syslog and as a line of stdout: one line each, bounded, and nothing of the
// sender's that a terminal would obey.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "supervisor/log/record.h"

using namespace jail::log;

namespace {

/// One line, whole, without a control byte.
void check_line(const std::string& line) {
  if (line.empty() || line.back() != '\n' || line.size() > line_limit) std::abort();
  for (std::size_t i = 0; i + 1 < line.size(); ++i)
    if (static_cast<unsigned char>(line[i]) < 0x20 || line[i] == '\x7f') std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > record_limit) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Parsed parsed = parse_syslog(bytes);
  if (parsed.facility == 0 || parsed.facility > 23 || parsed.severity > 7) std::abort();
  for (const Source source : {Source::syslog, Source::out, Source::err}) {
    const Record record{source, 1'700'000'000'123'456, 7, size % 3, bytes};
    if (severity_of(record) > 7) std::abort();
    std::string line;
    append_line(line, "named", record);
    check_line(line);
    std::string datagram;
    append_datagram(datagram, "named", record);
    if (datagram.size() > line_limit || !datagram.starts_with('<')) std::abort();
  }
  return 0;
}
