// Any bytes as a lock, as the secrets beside it, as the index of a generation and as that of the store. What
// is believed is written again as it was read.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "jailer/tree/hash.h"
#include "jailer/tree/lock.h"
#include "jailer/tree/lock_reader.h"
#include "jailer/tree/lock_text.h"
#include "jailer/tree/secrets.h"
#include "jailer/tree/store_index.h"
#include "jailer/tree/tree_index.h"

using namespace jail;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (const auto lock = lock_from_json(text, "f"); lock && to_json(*lock) != text) std::abort();
  // Past the seal, which no fuzzer finds: whatever has a lock's shape can be sealed and is then believed.
  if (auto lock = tree::read_lock(text, "f")) {
    lock->tree_hash = tree_hash(lock->entries);
    if (!lock_from_json(to_json(*lock), "f")) std::abort();
  }
  // What it leaves out of secrets: believed for just these files, and written again as it was read.
  Lock secrets;
  LockEntry& key = secrets.entries.emplace_back();
  key.path = "/k";
  key.secret = true;
  if (tree::add_secrets(secrets, text, "f") && !tree::add_secrets(secrets, tree::secrets_json(secrets), "f"))
    std::abort();
  if (const auto index = tree::tree_index_from_json(text, "f"))
    if (!tree::tree_index_from_json(tree::to_json(*index), "f")) std::abort();
  if (const auto index = tree::StoreIndex::from_bytes(text)) {
    const auto again = tree::StoreIndex::from_bytes(index->to_bytes());
    if (!again || again->sources != index->sources || again->objects != index->objects) std::abort();
  }
  if (tree::from_text(tree::to_text(text)) != text) std::abort();
  if (const auto bytes = tree::from_text(text); bytes && tree::to_text(*bytes) != text) std::abort();
  return 0;
}
