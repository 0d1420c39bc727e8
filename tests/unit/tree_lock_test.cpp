// jail.lock: what is written is read back byte for byte, and nothing else is believed.
#include <algorithm>
#include <map>

#include "catch.h"
#include "jailer/tree/hash.h"
#include "jailer/tree/lock.h"
#include "jailer/tree/lock_text.h"
#include "jailer/tree/secrets.h"

namespace {

using namespace jail;

const std::string zeros(64, '0');

LockEntry entry(const std::string& path, EntryType type, std::uint32_t mode) {
  LockEntry made;
  made.path = path;
  made.type = type;
  made.mode = mode;
  made.why = {{"parent", "", ""}};
  return made;
}

/// One entry of each type, and every optional key.
Lock sample() {
  Lock lock;
  lock.name = "named";
  lock.distribution = "debian-12";
  lock.entries.push_back(entry("/", EntryType::directory, 0755));
  lock.entries.push_back(entry("/dev", EntryType::directory, 0755));
  LockEntry disk = entry("/dev/disk", EntryType::block_device, 0660);
  disk.major = 4294967295U;
  lock.entries.push_back(disk);
  LockEntry null = entry("/dev/null", EntryType::character_device, 0666);
  null.major = 1;
  null.minor = 3;
  lock.entries.push_back(null);
  LockEntry link = entry("/lib", EntryType::symlink, 0777);
  link.target = "usr/lib";
  lock.entries.push_back(link);
  LockEntry file = entry("/odd \xff\\ \xc3\xa4\n\"name", EntryType::file, 04755);
  file.uid = 4294967294U;
  file.gid = 110;
  file.size = 18446744073709551615U;
  file.sha256 = std::string(64, 'a');
  file.source = "/usr/sbin/named";
  file.package = "bind9";
  file.package_version = "1:9.18.33-1~deb12u2";
  file.package_architecture = "amd64";
  file.xattrs = {{"security.capability", std::string("\1\0\xff", 3)}, {"user.empty", ""}};
  file.why = {{"binary", "", "tree.binaries[0]"}, {"needed", "/lib", "libc.so.6"}};
  lock.entries.push_back(file);
  LockEntry key = entry("/sealed", EntryType::file, 0400);
  key.secret = true;
  key.size = 32;  // none of the three is in the text
  key.sha256 = std::string(64, 'b');
  key.xattrs = {{"user.checksum", std::string(8, '\xbb')}};
  lock.entries.push_back(key);
  lock.frozen = {{"filter.bpf", zeros}, {"launch.json", zeros}, {"manifest.json", zeros}};
  lock.volumes = {{"named-cache", "/var/cache/bind", 103, 110, 0750}};
  lock.tree_hash = tree_hash(lock.entries);
  return lock;
}

/// The sample with `from`, which is there once, replaced.
std::string edited(const std::string& from, const std::string& to) {
  std::string text = to_json(sample());
  const std::size_t at = text.find(from);
  INFO(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

Error refused(const std::string& text) {
  const auto lock = lock_from_json(text, "/j/jail.lock");
  REQUIRE_FALSE(lock);
  CHECK(lock.error().exit == Exit::manifest);
  CHECK(lock.error().message.starts_with("/j/jail.lock: "));
  return lock.error();
}

/// As somebody who knows how writes it: with the tree hash and the seal that fit.
std::string sealed(Lock lock) {
  lock.tree_hash = tree_hash(lock.entries);
  return to_json(lock);
}

}  // namespace

TEST_CASE("A lock comes back as it went, byte for byte") {
  const std::string text = to_json(sample());
  const auto lock = lock_from_json(text, "lock");
  INFO((lock ? std::string() : lock.error().message));
  REQUIRE(lock);
  CHECK(to_json(*lock) == text);
  const LockEntry& file = lock->entries.at(5);
  CHECK(file.path == "/odd \xff\\ \xc3\xa4\n\"name");
  CHECK(file.mode == 04755);
  CHECK(file.uid == 4294967294U);
  CHECK(file.size == 18446744073709551615U);
  const LockEntry& key = lock->entries.at(6);
  CHECK(key.secret);
  CHECK(key.size == 0);
  CHECK(key.sha256.empty());
  CHECK(key.xattrs.empty());
  CHECK(file.xattrs == sample().entries.at(5).xattrs);
  CHECK(file.why == sample().entries.at(5).why);
  CHECK(lock->entries.at(2).major == 4294967295U);
  CHECK(lock->entries.at(4).target == "usr/lib");
  CHECK(lock->frozen.size() == 3);
  CHECK(lock->volumes.front().mode == 0750);
}

TEST_CASE("A lock is text that diff can show: one entry a line, sorted keys, an end of line") {
  const std::string text = to_json(sample());
  CHECK(text.ends_with("\n}\n"));
  CHECK(text.find("\n  {\"gid\":0,\"mode\":\"0755\",\"path\":\"/dev\",\"type\":\"directory\",\"uid\":0,") !=
        std::string::npos);
  CHECK(std::count(text.begin(), text.end(), '\n') ==
        static_cast<std::ptrdiff_t>(sample().entries.size() + sample().volumes.size() + 12));
}

TEST_CASE("The tree hash is what lock.cpp says, field by field") {
  std::vector<LockEntry> entries = sample().entries;
  std::string records = std::string("jail-tree-v1") + '\0';
  const auto add = [&](const std::vector<std::string>& fields) {
    for (const std::string& field : fields) records += field + '\0';
  };
  add({"/", "directory", "755", "0", "0"});
  add({"/dev", "directory", "755", "0", "0"});
  add({"/dev/disk", "block_device", "660", "0", "0", "4294967295", "0"});
  add({"/dev/null", "character_device", "666", "0", "0", "1", "3"});
  add({"/lib", "symlink", "777", "0", "0", "usr/lib"});
  add({entries.at(5).path, "file", "4755", "4294967294", "110", "18446744073709551615", std::string(64, 'a'),
       "security.capability", "0x0100ff", "user.empty", "0x"});
  add({"/sealed", "file", "400", "0", "0", "secret"});
  CHECK(tree_hash(entries) == sha256_hex(records));
  // Why something is there, and whose it was, is not what a tree is made of.
  entries.at(5).package = "other";
  entries.at(5).why.clear();
  CHECK(tree_hash(entries) == sample().tree_hash);
  // Nor what is secret.
  entries.at(6).xattrs.clear();
  CHECK(tree_hash(entries) == sample().tree_hash);
  entries.at(5).xattrs["user.empty"] = "x";
  CHECK(tree_hash(entries) != sample().tree_hash);
  entries.at(5).xattrs["user.empty"] = "";
  CHECK(tree_hash(entries) == sample().tree_hash);
  entries.at(5).mode = 0755;
  CHECK(tree_hash(entries) != sample().tree_hash);
}

TEST_CASE("Hashes and sizes of secret files are beside the lock, and fit it or are refused") {
  const Lock whole = sample();
  const std::string text = tree::secrets_json(whole);
  CHECK(to_json(whole).find(std::string(16, 'b')) == std::string::npos);
  Lock lock = lock_from_json(to_json(whole), "lock").value();
  REQUIRE(tree::add_secrets(lock, text, "secrets.json"));
  CHECK(lock.entries.at(6).size == 32);
  CHECK(lock.entries.at(6).sha256 == std::string(64, 'b'));
  CHECK(lock.entries.at(6).xattrs == whole.entries.at(6).xattrs);
  CHECK(to_json(lock) == to_json(whole));
  const auto refused_with = [&](const std::string& from, const std::string& to) {
    std::string other = text;
    REQUIRE(other.find(from) != std::string::npos);
    Lock fresh = whole;
    const auto added = tree::add_secrets(fresh, other.replace(other.find(from), from.size(), to), "s");
    return !added && added.error().exit == Exit::manifest;
  };
  CHECK(refused_with("/sealed", "/sealer"));
  CHECK(refused_with("bbbb", "BBBB"));
  CHECK(refused_with("\"size\": 32", "\"size\": -1"));
  CHECK(refused_with("\"size\": 32", "\"size\": 32, \"x\": 1"));
  CHECK(refused_with("\"xattrs\"", "\"x\""));
  CHECK(refused_with("\"0xbb", "\"0xBB"));
  CHECK(refused_with("user.checksum", "checksum"));
  CHECK(refused_with("\"version\": 1", "\"version\": 2"));
  CHECK(refused_with("{", "["));
  Lock without = whole;
  without.entries.pop_back();
  CHECK(tree::secrets_json(without).empty());
  CHECK_FALSE(tree::add_secrets(without, text, "s"));
}

TEST_CASE("Whatever byte of a lock is edited, it is refused") {
  const std::string text = to_json(sample());
  std::size_t tried = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (const char byte : {static_cast<char>(text[at] ^ 1), ' ', '0', '"', '\0', '\xff'}) {
      if (byte == text[at]) continue;
      std::string other = text;
      other[at] = byte;
      const auto lock = lock_from_json(other, "/j/jail.lock");
      INFO("byte " << at << " is " << static_cast<int>(byte));
      REQUIRE_FALSE(lock);
      REQUIRE(lock.error().exit == Exit::manifest);
      REQUIRE(lock.error().message.starts_with("/j/jail.lock: "));
      ++tried;
    }
  }
  CHECK(tried > 5 * text.size());
}

TEST_CASE("A lock that is cut short or has something added is refused") {
  const std::string text = to_json(sample());
  for (std::size_t size = 0; size < text.size(); ++size) {
    const auto lock = lock_from_json(text.substr(0, size), "lock");
    INFO("cut at " << size);
    REQUIRE_FALSE(lock);
    REQUIRE(lock.error().exit == Exit::manifest);
  }
  for (std::size_t at = 0; at <= text.size(); ++at) {
    std::string other = text;
    REQUIRE_FALSE(lock_from_json(other.insert(at, 1, at % 2 == 0 ? ' ' : '\n'), "lock"));
  }
}

TEST_CASE("An edit that keeps its shape is told as one, with the way out") {
  const Error mode = refused(edited("\"mode\":\"4755\"", "\"mode\":\"0755\""));
  CHECK(mode.message == "/j/jail.lock: edited since the build: its tree hash does not match its content");
  CHECK(mode.hint.find("jail build --force") != std::string::npos);
  // What the tree hash leaves out is sealed all the same.
  for (const auto& [from, to] :
       std::map<std::string, std::string>{{"\"package\":\"bind9\"", "\"package\":\"bind8\""},
                                          {"tree.binaries[0]", "tree.binaries[1]"},
                                          {"/var/cache/bind", "/var/cache/bond"},
                                          {"\"launch.json\":\"0", "\"launch.json\":\"1"},
                                          {"\"name\": \"named\"", "\"name\": \"nomad\""}})
    CHECK(refused(edited(from, to)).message ==
          "/j/jail.lock: edited since the build: its seal does not match its content");
}

TEST_CASE("What is wrong with a lock is named with its place") {
  struct Case {
    const char* from;
    const char* to;
    const char* message;
  };
  const Case cases[] = {
      {"\"path\":\"/dev\"", "\"path\":\"/../etc\"",
       R"(entries[1]: "path" must be absolute and without "..")"},
      {"\"path\":\"/dev\"", "\"path\":\"/dev/\"", R"(entries[1]: "path" must be absolute and without "..")"},
      {"\"path\":\"/dev\"", "\"path\":\"//dev\"", R"(entries[1]: "path" must be absolute and without "..")"},
      {"\"path\":\"/dev\"", "\"path\":\"/./dev\"", R"(entries[1]: "path" must be absolute and without "..")"},
      {"\"path\":\"/dev\"", "\"path\":\"dev\"", R"(entries[1]: "path" must be absolute and without "..")"},
      {"\"path\":\"/dev\"", "\"path\":\"\"", R"(entries[1]: "path" must be absolute and without "..")"},
      {"\"path\":\"/dev\"", "\"path\":\"/d\\u0000v\"", R"(entries[1]: "path" is not text of ours)"},
      {"\"path\":\"/dev\"", "\"path\":\"/d\\\\x41\"", R"(entries[1]: "path" is not text of ours)"},
      {"\"path\":\"/dev\"", "\"path\":\"/d\\\\y\"", R"(entries[1]: "path" is not text of ours)"},
      {"\"path\":\"/dev\"", "\"path\":[]", R"(entries[1]: "path" must be a string)"},
      {"\"path\":\"/dev\"", "\"path\":\"/zoo\"", "'/dev/disk': not in a directory of the lock"},
      {"\"path\":\"/dev/null\"", "\"path\":\"/dev/disk\"", "'/dev/disk': out of order, or twice"},
      {"\"path\":\"/dev/null\"", "\"path\":\"/doc/null\"", "'/doc/null': not in a directory of the lock"},
      {"\"path\":\"/lib\"", "\"path\":\"/dev/null/lib\"", "'/dev/null/lib': not in a directory of the lock"},
      {"\"path\":\"/dev\",\"type\":\"directory\"", "\"path\":\"/dev\",\"type\":\"fifo\"",
       "entries[1]: 'fifo' is no type of an entry"},
      {"\"mode\":\"4755\"", "\"mode\":\"04755\"", R"(entries[5]: "mode" must be four octal digits)"},
      {"\"mode\":\"4755\"", "\"mode\":\"0758\"", R"(entries[5]: "mode" must be four octal digits)"},
      {"\"mode\":\"4755\"", "\"mode\":493", R"(entries[5]: "mode" must be a string)"},
      {"\"uid\":4294967294", "\"uid\":4294967296", R"(entries[5]: "uid" must be a whole number that fits)"},
      {"\"uid\":4294967294", "\"uid\":-1", R"(entries[5]: "uid" must be a whole number that fits)"},
      {"\"uid\":4294967294", "\"uid\":1.0", R"(entries[5]: "uid" must be a whole number that fits)"},
      {"\"uid\":4294967294", "\"uid\":\"0\"", R"(entries[5]: "uid" must be a whole number that fits)"},
      {"\"size\":18446744073709551615", "\"size\":18446744073709551616",
       R"(entries[5]: "size" must be a whole number that fits)"},
      {"\"major\":4294967295", "\"major\":4294967296",
       R"(entries[2]: "major" must be a whole number that fits)"},
      {"\"minor\":3", "\"minor\":null", R"(entries[3]: "minor" must be a whole number that fits)"},
      {"\"minor\":3,", "", R"(entries[3]: the key "minor" is missing)"},
      {"\"target\":\"usr/lib\"", "\"target\":\"\"", R"(entries[4]: "target" is empty)"},
      {"\"target\":\"usr/lib\"", "\"size\":1,\"target\":\"usr/lib\"", "entries[4]: unknown key 'size'"},
      {"\"package\":\"bind9\"", "\"package\":\"\"", R"(entries[5]: "package" is empty)"},
      {"\"user.empty\":\"0x\"", "\"user.empty\":\"0x0\"",
       R"(entries[5]: "xattrs" must be an object of names and values (0x...))"},
      {"\"user.empty\":\"0x\"", "\"other.empty\":\"0x\"",
       R"(entries[5]: "xattrs" must be an object of names and values (0x...))"},
      {"\"target\":\"usr/lib\"", "\"target\":\"usr/lib\",\"xattrs\":{\"user.x\":\"0x\"}",
       "entries[4]: unknown key 'xattrs'"},
      {"\"secret\":true", "\"secret\":true,\"xattrs\":{\"user.x\":\"0x\"}",
       "entries[6]: unknown key 'xattrs'"},
      {"\"secret\":true", "\"secret\":false", R"(entries[6]: "secret" can only be true)"},
      {"\"secret\":true", "\"secret\":1", R"(entries[6]: "secret" can only be true)"},
      {"\"secret\":true", "\"secret\":true,\"size\":1", "entries[6]: unknown key 'size'"},
      {",\"secret\":true", "", R"(entries[6]: the key "size" is missing)"},
      {"\"kind\":\"binary\"", "\"kind\":7", R"(entries[5].why: "kind" must be a string)"},
      {"\"kind\":\"binary\"", "\"kind\":\"x\",\"x\\n\":1", "entries[5].why: unknown key 'x\\x0a'"},
      {"\"why\":[{\"detail\"", "\"why\":[1,{\"detail\"", "entries[5].why: must be an object"},
      {"\"launch.json\":\"0", "\"../launch.json\":\"0", "frozen: '../launch.json' is no file name"},
      {"\"launch.json\":\"0", "\".lock\":\"0", "frozen: '.lock' is no file name"},
      {"\"launch.json\":\"0", "\"launch.json\":\"X",
       R"(frozen: "launch.json" must be 64 hexadecimal digits)"},
      {"\"launch.json\":\"0", "\"launch.json\":\"", R"(frozen: "launch.json" must be 64 hexadecimal digits)"},
      {"\"name\":\"named-cache\"", "\"name\":\"../x\"", R"(volumes[0]: "name" cannot name a volume)"},
      {"\"path\":\"/var/cache/bind\"", "\"path\":\"/var/../etc\"",
       R"(volumes[0]: "path" must be absolute and without "..")"},
      {"\"version\": 1", "\"version\": 2", "a lock of version 2, this program knows 1"},
      {"\"version\": 1", "\"version\": \"1\"", R"(the lock: "version" must be a whole number that fits)"},
      {"\"version\": 1", "\"version\": 99999999999",
       R"(the lock: "version" must be a whole number that fits)"},
      {"\"version\": 1", "\"version\": 1, \"more\": 1", "the lock: unknown key 'more'"},
      {"\"seal\": \"", "\"seal\": \"0", R"(the lock: "seal" must be 64 hexadecimal digits)"},
      {"\"tree_hash\": ", "\"hash\": ", R"(the lock: the key "tree_hash" is missing)"},
      {"\"volumes\": [", "\"volumes\": {}, \"other\": [", R"(the lock: "volumes" must be a list)"},
  };
  for (const Case& test : cases) {
    INFO(test.from << " -> " << test.to);
    const Error error = refused(edited(test.from, test.to));
    CHECK(error.message == std::string("/j/jail.lock: ") + test.message);
  }
}

TEST_CASE("A lock that is no JSON says where it stops being it") {
  CHECK(refused("").message == "/j/jail.lock: not JSON, or cut short, at byte 1");
  CHECK(refused("{\"version\": 1,}").message == "/j/jail.lock: not JSON, or cut short, at byte 15");
  CHECK(refused(std::string("{\"a\xff\": 1}")).message == "/j/jail.lock: not JSON, or cut short, at byte 4");
  CHECK(refused("[]").message == "/j/jail.lock: the lock: must be an object");
  CHECK(refused("null").message == "/j/jail.lock: the lock: must be an object");
  CHECK_FALSE(refused("[]").hint.empty());
}

TEST_CASE("Nests without end neither overflow the stack nor are believed") {
  constexpr std::size_t deep = 300'000;
  (void)refused(std::string(deep, '['));
  (void)refused(std::string(deep, '[') + std::string(deep, ']'));
  const std::string nest = std::string(deep, '[') + std::string(deep, ']');
  CHECK(refused(edited("\"minor\":3", "\"minor\":" + nest)).message ==
        "/j/jail.lock: entries[3]: \"minor\" must be a whole number that fits");
  CHECK(refused(edited("\"version\": 1", "\"version\": 1, \"x\": " + nest)).message ==
        "/j/jail.lock: the lock: unknown key 'x'");
}

TEST_CASE("A seal that fits does not make a bad lock a good one") {
  Lock lock = sample();
  std::swap(lock.entries[1], lock.entries[4]);
  CHECK(refused(sealed(lock)).message.find("not in a directory") != std::string::npos);
  lock = sample();
  lock.entries.insert(lock.entries.begin() + 2, lock.entries[1]);
  CHECK(refused(sealed(lock)).message == "/j/jail.lock: '/dev': out of order, or twice");
  lock = sample();
  lock.entries[1].path = "/../dev";
  (void)refused(sealed(lock));
  lock = sample();
  lock.entries[0].type = EntryType::symlink;
  lock.entries[0].target = "/etc";
  CHECK(refused(sealed(lock)).message == "/j/jail.lock: '/': not in a directory of the lock");
  lock = sample();
  lock.entries.clear();
  CHECK(refused(sealed(lock)).message == "/j/jail.lock: there are no entries");
  lock = sample();
  lock.volumes.push_back({"a", "/a", 0, 0, 0750});
  CHECK(refused(sealed(lock)).message == "/j/jail.lock: volumes[1]: out of order");
  // And the same key twice, of which JSON readers take the last.
  CHECK(refused(edited("\"name\": \"named\"", "\"name\": \"nomad\",\"name\": \"named\"")).message ==
        "/j/jail.lock: edited since the build: its seal does not match its content");
}

TEST_CASE("Bytes of names survive as text, and only one text stands for them") {
  std::string all;
  for (int byte = 1; byte < 256; ++byte) all += static_cast<char>(byte);
  const std::string odd[] = {all,
                             "/plain",
                             "",
                             "\\",
                             "\\x41",
                             "\xc3\xa4",
                             "\xed\xa0\x80",
                             "\xf4\x90\x80\x80",
                             "\xc0\x80",
                             "\xe2\x82",
                             "\xf0\x9f\x92\xa9"};
  for (const std::string& bytes : odd) CHECK(tree::from_text(tree::to_text(bytes)) == bytes);
  CHECK(tree::to_text("\xff\\\xc3\xa4") == "\\xff\\\\\xc3\xa4");
  for (const char* bad : {"\\", "\\x", "\\x4", "\\x41", "\\xFF", "\\xc3\\xa4", "a\\b"})
    CHECK_FALSE(tree::from_text(bad));
  CHECK_FALSE(tree::from_text("raw \x89, which to_text() never leaves"));
}
