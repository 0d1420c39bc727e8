#include "catch.h"
#include "jailer/elf/ld_cache.h"

using namespace jail::elf;

namespace {

struct Row {
  std::string name, path;
  std::uint32_t flags = 0x303;
  std::uint64_t hwcap = 0;
};

struct CacheMaker {
  std::vector<Row> rows;
  std::vector<std::string> hwcaps;
  bool big = false;
  unsigned char order = 2;

  std::string bytes;
  void number(std::uint64_t value, int size) {
    for (int i = 0; i < size; ++i) bytes += static_cast<char>(value >> (8 * (big ? size - 1 - i : i)));
  }

  /// The new format, to stand at a multiple of 8.
  std::string fresh() {
    bytes.clear();
    std::string strings;
    const std::size_t base = 48 + rows.size() * 24;
    const auto text = [&](const std::string& value) {
      strings += value + std::string(1, '\0');
      return base + strings.size() - value.size() - 1;
    };
    std::string head = "glibc-ld.so.cache1.1";
    std::vector<std::pair<std::size_t, std::size_t>> places;
    for (const Row& row : rows) {
      const auto name = text(row.name);
      places.emplace_back(name, text(row.path));
    }
    std::vector<std::size_t> names;
    for (const std::string& hwcap : hwcaps) names.push_back(text(hwcap));
    strings.resize((base + strings.size() + 7) / 8 * 8 - base);
    bytes = head;
    number(rows.size(), 4);
    number(strings.size(), 4);
    bytes += static_cast<char>(order);
    bytes += std::string(3, '\0');
    number(hwcaps.empty() ? 0 : base + strings.size(), 4);
    number(0, 12);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      number(rows[i].flags, 4);
      number(places[i].first, 4);
      number(places[i].second, 4);
      number(0, 4);
      number(rows[i].hwcap, 8);
    }
    bytes += strings;
    if (!hwcaps.empty()) {
      number(0xEAA42174, 4);
      number(1, 4);
      number(1, 4);
      number(0, 4);
      number(bytes.size() + 8, 4);
      number(hwcaps.size() * 4, 4);
      for (const std::size_t name : names) number(name, 4);
    }
    return bytes;
  }

  std::string old() {
    bytes = std::string("ld.so-1.7.0") + '\0';
    number(rows.size(), 4);
    std::string strings;
    for (const Row& row : rows) {
      number(row.flags, 4);
      number(strings.size(), 4);
      strings += row.name + '\0';
      number(strings.size(), 4);
      strings += row.path + '\0';
    }
    return bytes + strings;
  }
};

CacheMaker two() {
  CacheMaker maker;
  maker.rows = {{"libb.so", "/lib/libb.so"},
                {"liba.so", "/hw/liba.so", 0x303, (std::uint64_t{1} << 62) | (std::uint64_t{2} << 32) | 1},
                {"liba.so", "/lib/liba.so"}};
  maker.hwcaps = {"x86-64-v2", "x86-64-v3"};
  return maker;
}

}  // namespace

TEST_CASE("the new cache: names, flags, glibc-hwcaps") {
  const auto cache = LdCache::parse(two().fresh());
  REQUIRE(cache);
  REQUIRE(cache->find("liba.so").size() == 2);
  const CacheEntry& first = cache->entries()[cache->find("liba.so")[0]];
  CHECK(first.path == "/hw/liba.so");
  CHECK(first.hwcap_name == "x86-64-v3");
  CHECK(first.isa_level() == 2);
  CHECK(cache->problem().empty());
  CHECK(cache->entries()[cache->find("liba.so")[1]].hwcap == 0);
  CHECK(cache->entries()[cache->find("libb.so")[0]].flags == 0x303);
  CHECK(cache->find("libc.so").empty());
}

TEST_CASE("the old cache, and the new behind the old") {
  CacheMaker old;
  old.rows = {{"liba.so", "/old/liba.so", 0x3}};
  const auto alone = LdCache::parse(old.old());
  REQUIRE(alone);
  CHECK(alone->entries()[0].path == "/old/liba.so");
  // A string offset of the old part counts from behind its entries: the new part must stand right there.
  CacheMaker empty;
  std::string both = empty.old() + two().fresh();
  const auto cache = LdCache::parse(both);
  REQUIRE(cache);
  CHECK(cache->entries().size() == 3);
  // Its extensions count from the start of the file, and do not stand there.
  CHECK_FALSE(cache->problem().empty());
}

TEST_CASE("byte orders") {
  CacheMaker maker = two();
  maker.big = true;
  maker.order = 3;
  const auto big = LdCache::parse(maker.fresh(), true);
  REQUIRE(big);
  CHECK(big->entries()[1].path == "/hw/liba.so");
  CHECK(big->entries()[1].hwcap_name == "x86-64-v3");
  CHECK(big->entries()[1].isa_level() == 2);
  CHECK_FALSE(LdCache::parse(maker.fresh(), false));
  maker = two();
  maker.order = 0;
  CHECK(LdCache::parse(maker.fresh()));
  maker.order = 1;  // ldconfig's mark for a broken one
  CHECK_FALSE(LdCache::parse(maker.fresh()));
}

TEST_CASE("broken caches are refused, or lose what is broken") {
  const std::string good = two().fresh();
  CHECK_FALSE(LdCache::parse(""));
  CHECK_FALSE(LdCache::parse("glibc-ld.so.cache1.1"));
  CHECK_FALSE(LdCache::parse("ld.so-1.7.0"));
  const auto with = [&](std::size_t at, std::uint32_t value) {
    std::string bytes = good;
    for (std::size_t i = 0; i < 4; ++i) bytes[at + i] = static_cast<char>(value >> (8 * i));
    return LdCache::parse(bytes);
  };
  CHECK_FALSE(with(20, 0xffffffff));                           // more entries than bytes
  for (const std::uint32_t place : {0xfffffffcU, 49U, 48U}) {  // outside, not aligned, not extensions
    const auto nameless = with(32, place);
    REQUIRE(nameless);
    CHECK_FALSE(nameless->problem().empty());
    CHECK(nameless->entries().size() == 3);
    CHECK(nameless->entries()[1].named());
    CHECK(nameless->entries()[1].hwcap_name.empty());
  }
  const auto outside = with(48 + 4, 0xffffffff);
  REQUIRE(outside);
  CHECK(outside->entries().size() == 2);
  for (std::size_t size = 0; size < good.size(); ++size) (void)LdCache::parse(good.substr(0, size));
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string bytes = good;
    bytes[at] = '\xff';
    (void)LdCache::parse(bytes);
  }
}
