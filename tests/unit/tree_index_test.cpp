// The two indexes that save time: index.json of a generation and the store's. What cannot be read is no
// index; nothing else happens.
#include "jailer/tree/tree_index.h"

#include "catch.h"
#include "jailer/tree/store_index.h"

namespace {

using namespace jail;
using namespace jail::tree;

TreeIndex tree_sample() {
  return {2, 18446744073709551615U, {{1, 2, 3, 4}, {18446744073709551615U, 0, -1, 9223372036854775807}}};
}

StoreIndex store_sample() {
  StoreIndex index;
  index.sources["/usr/sbin/named"] = {
      7, {11, 12, -13, 14}, std::string(64, 'a'), "1:2:3;-;", "bind9", "1:9.18.33-1~deb12u2", "amd64"};
  index.sources["/odd \xff\nname"] = {18446744073709551615U, {}, std::string(64, 'b'), "?", "", "", ""};
  index.objects[std::string(64, 'a') + "-0755-0-0"] = {1, 2, 3, 4};
  index.objects[std::string(64, 'c') + "-0640-0-110"] = {5, 6, 7, 8};
  return index;
}

}  // namespace

TEST_CASE("index.json comes back as it went") {
  const std::string text = to_json(tree_sample());
  const auto index = tree_index_from_json(text, "index.json");
  REQUIRE(index);
  CHECK(index->files == 2);
  CHECK(index->bytes == 18446744073709551615U);
  CHECK(index->entries == tree_sample().entries);
  CHECK(to_json(*index) == text);
}

TEST_CASE("index.json that is torn, wrong or hostile is no index") {
  const std::string text = to_json(tree_sample());
  for (std::size_t size = 0; size + 1 < text.size(); ++size) {
    INFO("cut at " << size);
    REQUIRE_FALSE(tree_index_from_json(text.substr(0, size), "i"));
  }
  for (const char* bad :
       {"", "[]", "7", "null", R"({"version":1})", R"({"version":2,"files":0,"bytes":0,"entries":[]})",
        R"({"version":"1","files":0,"bytes":0,"entries":[]})",
        R"({"version":1,"files":-1,"bytes":0,"entries":[]})",
        R"({"version":1,"files":0,"bytes":0.5,"entries":[]})",
        R"({"version":1,"files":0,"bytes":0,"entries":{}})",
        R"({"version":1,"files":0,"bytes":0,"entries":[[1,2,3]]})",
        R"({"version":1,"files":0,"bytes":0,"entries":[[1,2,3,4,5]]})",
        R"({"version":1,"files":0,"bytes":0,"entries":[[1,2,3,"4"]]})",
        R"({"version":1,"files":0,"bytes":0,"entries":[[1,2,3,4.0]]})",
        R"({"version":1,"files":0,"bytes":0,"entries":[1,2,3,4]})"}) {
    const auto index = tree_index_from_json(bad, "gen/000001/index.json");
    INFO(bad);
    REQUIRE_FALSE(index);
    CHECK(index.error().exit == Exit::manifest);
    CHECK(index.error().message == "gen/000001/index.json: not an index of ours");
  }
  const std::string nest(300'000, '[');
  CHECK_FALSE(tree_index_from_json(nest, "i"));
  CHECK_FALSE(tree_index_from_json(
      R"({"version":1,"files":0,"bytes":0,"entries":)" + nest + std::string(300'000, ']') + "}", "i"));
}

TEST_CASE("The store's index comes back as it went") {
  const std::string bytes = store_sample().to_bytes();
  const auto index = StoreIndex::from_bytes(bytes);
  REQUIRE(index);
  CHECK(index->sources == store_sample().sources);
  CHECK(index->objects == store_sample().objects);
  CHECK(index->to_bytes() == bytes);
  CHECK(StoreIndex::from_bytes(StoreIndex().to_bytes()));
}

TEST_CASE("A torn index of the store is none, or a true part of it") {
  const std::string bytes = store_sample().to_bytes();
  std::size_t parts = 0;
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const auto index = StoreIndex::from_bytes(std::string_view(bytes).substr(0, size));
    if (!index) continue;
    ++parts;
    for (const auto& [path, record] : index->sources) REQUIRE(store_sample().sources.at(path) == record);
    for (const auto& [key, stamp] : index->objects) REQUIRE(store_sample().objects.at(key) == stamp);
  }
  CHECK(parts == 4);  // the head, and behind each record but the last
}

TEST_CASE("Whatever byte of the store's index is flipped, reading it does no harm") {
  const std::string bytes = store_sample().to_bytes();
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    for (int byte = 0; byte < 256; byte += 5) {
      std::string other = bytes;
      other[at] = static_cast<char>(byte);
      if (const auto index = StoreIndex::from_bytes(other))
        REQUIRE(StoreIndex::from_bytes(index->to_bytes()));
    }
  }
  for (const std::string& bad :
       {std::string(), std::string("jail-store-index 2"), std::string("jail-store-index 1\0", 19),
        std::string("jail-store-index 2\0X\0", 21),
        std::string("jail-store-index 2\0O\0k\0-1\0002\0003\0004\0", 32),
        std::string("jail-store-index 2\0O\0k\00018446744073709551616\0002\0003\0004\0", 50),
        std::string("jail-store-index 2\0O\0k\0 1\0002\0003\0004\0", 32),
        std::string("jail-store-index 2\0O\0k\0", 23)}) {
    INFO(bad.size());
    CHECK_FALSE(StoreIndex::from_bytes(bad));
  }
}
