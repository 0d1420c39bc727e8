// Extended attributes: their text, the hash of them, and what a mode makes of an ACL.
#include <nlohmann/json.hpp>

#include "catch.h"
#include "jailer/tree/acl.h"
#include "jailer/tree/attributes.h"
#include "jailer/tree/attributes_json.h"
#include "jailer/tree/hash.h"
#include "jailer/tree/store.h"

namespace {

using namespace jail;
using namespace jail::tree;
using nlohmann::json;

struct AclEntry {
  char tag;
  char perm;
  std::uint32_t id = 0xffffffffU;
};

/// As the kernel gives and takes it: little-endian, version 2.
std::string acl(std::initializer_list<AclEntry> entries) {
  std::string value("\2\0\0\0", 4);
  for (const AclEntry& entry : entries) {
    value += {entry.tag, '\0', entry.perm, '\0'};
    for (unsigned shift = 0; shift < 32; shift += 8) value += static_cast<char>((entry.id >> shift) & 0xffU);
  }
  return value;
}

}  // namespace

TEST_CASE("Attributes come back as they went, whatever their bytes") {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  const Attributes attributes = {
      {"security.capability", all}, {"user.empty", ""}, {"user.big", std::string(65536, 'x')}};
  const json written = attributes_json(attributes);
  CHECK(written["user.empty"] == "0x");
  CHECK(attribute_text(std::string("\0\xff\x0a", 3)) == "0x00ff0a");
  CHECK(attributes_from_json(written) == attributes);
}

TEST_CASE("Attributes that are not as they are written are none") {
  for (const char* text :
       {"{}", "[]", "null", "\"0x\"", R"({"user.x":1})", R"({"user.x":null})", R"({"user.x":""})",
        R"({"user.x":"00"})", R"({"user.x":"0x0"})", R"({"user.x":"0xAB"})", R"({"user.x":"0x0g"})",
        R"({"user.x":"0X00"})", R"({"user.":"0x"})", R"({"x":"0x"})", R"({"system.posix_acl_default":"0x"})",
        R"({"user.a b":"0x"})", R"({"user.a\u0000":"0x"})", R"({"user.x":"0x","btrfs.x":"0x"})"}) {
    INFO(text);
    CHECK_FALSE(attributes_from_json(json::parse(text)));
  }
  json large;
  large["user.x"] = attribute_text(std::string(65537, 'x'));
  CHECK_FALSE(attributes_from_json(large));
  json odd;
  odd["user." + std::string(251, 'x')] = "0x";
  CHECK_FALSE(attributes_from_json(odd));
}

TEST_CASE("An object is named by its attributes, too, and without any as ever") {
  Object object{std::string(64, 'a'), 1, 0755, 0, 110};
  CHECK(object.key() == std::string(64, 'a') + "-0755-0-110");
  object.xattrs = {{"user.a", "1"}, {"user.b", ""}};
  const std::string text = std::string(
      "user.a\0"
      "0x31\0"
      "user.b\0"
      "0x\0",
      22);
  CHECK(object.key() == std::string(64, 'a') + "-0755-0-110-x" + sha256_hex(text));
  CHECK(object.key().size() < 256);
  CHECK(hash_of({{"user.a", "1"}}) != hash_of({{"user.a", "2"}}));
  CHECK(hash_of({{"user.a", "1"}}) != hash_of({{"user.b", "1"}}));
}

TEST_CASE("An ACL fits its mode as after a chmod, and gives nobody more") {
  const std::string rich = acl({{1, 7}, {2, 7, 33}, {4, 6}, {8, 3, 4000000000U}, {16, 7}, {32, 7}});
  CHECK(acl_text(rich) == "user::rwx,user:33:rwx,group::rw-,group:4000000000:-wx,mask::rwx,other::rwx");
  CHECK(acl_text(acl_with_mode(rich, 0750)) ==
        "user::rwx,user:33:rwx,group::rw-,group:4000000000:-wx,mask::r-x,other::---");
  // Without a mask the bits of the group are the group's.
  CHECK(acl_text(acl_with_mode(acl({{1, 7}, {4, 7}, {32, 7}}), 0640)) == "user::rw-,group::r--,other::---");
  CHECK(acl_with_mode(acl_with_mode(rich, 0750), 0750) == acl_with_mode(rich, 0750));
  for (const std::string& no_acl : {std::string(), std::string("\2\0\0", 3), rich.substr(0, rich.size() - 1),
                                    std::string("\1\0\0\0", 4) + rich.substr(4)}) {
    CHECK(acl_with_mode(no_acl, 0700) == no_acl);
    CHECK(acl_text(no_acl).empty());
  }
}
