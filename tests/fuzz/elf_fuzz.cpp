// Any bytes as an ELF file: header, verdict, dynamic segment, imports.
#include <cstdint>

#include "jailer/elf/elf_file.h"
#include "jailer/elf/mentions.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace jail::elf;
  const MemorySource source({reinterpret_cast<const char*>(data), size});
  (void)judge(read_header(source), Abi{2, 1, 62});
  (void)library_mentions(source);
  const auto file = read_elf(source);
  if (file) (void)read_imports(source, *file);
  return 0;
}
