// Any bytes as the JSON of a .note.dlopen.
#include <cstdint>

#include "jailer/elf/dlopen_note.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  (void)jail::elf::read_dlopen_note({reinterpret_cast<const char*>(data), size});
  return 0;
}
