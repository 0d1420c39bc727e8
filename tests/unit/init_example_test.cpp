// Examples: what ships, its schema and man page, and the words that are filled in.
#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "catch.h"
#include "jailer/init/accounts.h"
#include "jailer/init/example.h"
#include "jailer/manifest/reader.h"
#include "manifest_fixture.h"

using namespace jail;

namespace {

std::string slurp(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE("the schema of examples has the reader's keys, and demands what it demands") {
  const auto schema = nlohmann::json::parse(slurp(test::source_dir() + "/contrib/schema/init.schema.json"));
  std::set<std::string> keys;
  for (const auto& [name, value] : schema["properties"].items()) {
    const bool entries = value.value("type", "") == "array" && value["items"].contains("properties");
    keys.insert(name + (entries ? "[]" : ""));
    if (!entries) continue;
    for (const auto& [below, unused] : value["items"]["properties"].items())
      keys.insert(fmt::format("{}[].{}", name, below));
  }
  const auto known = init::example_key_paths();
  CHECK(keys == std::set<std::string>(known.begin(), known.end()));
  const auto demanded = [](const nlohmann::json& table, std::string_view key) {
    return std::find(table["required"].begin(), table["required"].end(), key) != table["required"].end();
  };
  for (const manifest::Key& key : init::example_keys().children) {
    CAPTURE(key.name);
    CHECK(key.required == demanded(schema, key.name));
    for (const manifest::Key& child : key.children)
      CHECK(child.required == demanded(schema["properties"][std::string(key.name)]["items"], child.name));
  }
}

TEST_CASE("the man page of examples names every key") {
  const std::string page = slurp(test::source_dir() + "/contrib/man/jail-init.toml.5");
  for (std::string path : init::example_key_paths()) {
    if (path.ends_with("[]")) path.resize(path.size() - 2);
    const std::string name = path.substr(path.rfind('.') + 1);
    CAPTURE(name);
    const bool told = page.find(".It Cm " + name + "\n") != std::string::npos ||
                      page.find("[[" + name + "]]") != std::string::npos;
    CHECK(told);
  }
}

TEST_CASE("every manifest that ships has an example that can be laid out") {
  Instance instance;
  instance.manifest_dirs = {test::source_dir() + "/manifests"};
  for (const std::string& name : manifest::names(instance)) {
    CAPTURE(name);
    const auto loaded = manifest::load(instance, name);
    REQUIRE(loaded);
    const auto example = init::load_example(instance, name, *loaded);
    INFO((example ? "" : example.error().message));
    REQUIRE(example);
    CHECK(example->contents.size() == example->files.size());
    CHECK_FALSE(example->units.empty());
  }
}

TEST_CASE("words between @ are filled in; what only looks like one stays") {
  const std::vector<init::Word> words = {{"config", "/etc/jail/x"}, {"name", ""}};
  const auto filled = [&](const char* text) { return init::fill_in(text, words, "f").value_or("(no)"); };
  CHECK(filled("") == "");
  CHECK(filled("@config@/a@config@") == "/etc/jail/x/a/etc/jail/x");
  CHECK(filled("a@@name@b") == "a@b");
  CHECK(filled("alice@example.test, @CONFIG@ @config @") == "alice@example.test, @CONFIG@ @config @");
  CHECK(filled("@") == "@");
  const auto unknown = init::fill_in("x @confg@", words, "f");
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().message == "f: @confg@ stands for nothing");
}

TEST_CASE("which users and groups are to be made") {
  manifest::Manifest manifest;
  manifest.tree.users = {"a", "b"};
  manifest.tree.groups = {"a", "g"};
  manifest.service.user = "b";
  manifest.volumes.push_back({"v", "/v", "c", "root"});
  Accounts accounts;
  accounts.users = {{"b", 1, 1, "", "", ""}};
  accounts.groups = {{"c", 2, {}}};
  const auto missing = init::missing_from(accounts, init::accounts_of(manifest));
  CHECK(missing.users == std::vector<std::string>{"a", "c"});
  CHECK(missing.groups == std::vector<std::string>{"g"});  // a comes with the user
  const auto last = [&](const char* user) {
    const auto words = init::useradd_words(accounts, user);
    return std::vector<std::string>(words.end() - 2, words.end());
  };
  CHECK(last("a") == std::vector<std::string>{"--user-group", "a"});
  CHECK(last("c") == std::vector<std::string>{"c", "c"});  // --gid c
}
