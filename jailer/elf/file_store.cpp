#include "jailer/elf/file_store.h"

#include "supervisor/base/io.h"

namespace jail::elf {

ParsedFile& FileStore::parsed(const RootTree::Found& found) {
  std::unique_ptr<ParsedFile>& slot = files_[{found.device, found.inode}];
  if (slot) return *slot;
  slot = std::make_unique<ParsedFile>();
  slot->where = found;
  std::uint64_t size = 0;
  auto fd = tree_.open_file(found, &size);
  if (!fd) {
    slot->problem = fd.error().message;
    slot->hint = fd.error().hint;
    return *slot;
  }
  const FdSource source(fd->get(), size);
  auto elf = read_elf(source);
  if (elf) {
    slot->header = elf->header;
    slot->elf = std::move(*elf);
  } else {
    slot->header = read_header(source);
    slot->problem = std::move(elf.error().message);
    slot->hint = std::move(elf.error().hint);
  }
  return *slot;
}

Result<const std::vector<std::string>*> FileStore::imports(ParsedFile& file) {
  if (!file.imports) {
    if (!file.elf || file.elf->symbols.count == 0) {
      file.imports.emplace();
      return &*file.imports;
    }
    std::uint64_t size = 0;
    JAIL_TRY(fd, tree_.open_file(file.where, &size));
    JAIL_TRY(names, read_imports(FdSource(fd.get(), size), *file.elf, watched_ ? &*watched_ : nullptr));
    file.imports = std::move(names);
  }
  return &*file.imports;
}

Result<std::string> FileStore::contents(const RootTree::Found& found, std::size_t limit) const {
  JAIL_TRY(fd, tree_.open_file(found, nullptr));
  return read_all(fd.get(), limit, found.located.real);
}

Result<std::string> FileStore::beginning(const RootTree::Found& found) const {
  std::uint64_t size = 0;
  JAIL_TRY(fd, tree_.open_file(found, &size));
  std::uint8_t bytes[257];
  const std::size_t got = FdSource(fd.get(), size).read(0, bytes, sizeof bytes);
  return std::string(reinterpret_cast<const char*>(bytes), got);
}

}  // namespace jail::elf
