// Views of a lock: purls, bills of materials, graphs and mtree specifications, with names that mean something
// to the formats they are written in.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "catch.h"
#include "jailer/closure/why.h"
#include "jailer/views/export.h"
#include "jailer/views/graph.h"
#include "jailer/views/inventory.h"
#include "jailer/views/purl.h"
#include "jailer/views/sbom.h"

namespace {

using namespace jail;
using namespace jail::views;

LockEntry made(const std::string& path, EntryType type, std::vector<Reason> why) {
  LockEntry entry;
  entry.path = path;
  entry.type = type;
  entry.mode = type == EntryType::directory ? 0755 : 0644;
  entry.why = std::move(why);
  if (type == EntryType::file) {
    entry.sha256 = std::string(64, 'a');
    entry.size = 1000;
    entry.source = path;
  }
  return entry;
}

const std::string evil = "/a/<b>&\"c\" d]]>\n\xff\\#=";

Lock sample() {
  Lock lock;
  lock.name = "thing";
  lock.distribution = "debian-12";
  lock.tree_hash = std::string(64, '0');
  lock.entries.push_back(made("/", EntryType::directory, {{"parent", "/a", ""}}));
  lock.entries.push_back(made("/a", EntryType::directory, {{"parent", "/a/lib", ""}}));
  lock.entries.push_back(made(evil, EntryType::file, {{"file", "", "<x>&"}}));
  lock.entries.push_back(made("/a/lib", EntryType::file, {{"needed", "/a/prog", "lib"}}));
  lock.entries.back().package = "libthing++1";
  lock.entries.back().package_version = "1:2.0+b1~rc1-1";
  lock.entries.back().package_architecture = "amd64";
  lock.entries.push_back(made("/a/link", EntryType::symlink, {{"link", "/a/lib", ""}}));
  lock.entries.back().target = "<target> with space";
  lock.entries.push_back(made("/a/null", EntryType::character_device, {{"device", "", "null"}}));
  lock.entries.back().major = 1;
  lock.entries.back().minor = 3;
  lock.entries.push_back(made("/a/prog", EntryType::file, {{"binary", "", "tree.binaries[0]"}}));
  lock.entries.back().mode = 0755;
  lock.entries.back().package = "thing";
  lock.entries.back().package_version = "1";
  lock.entries.push_back(made("/a/secret", EntryType::file, {{"file", "", ""}}));
  lock.entries.back().secret = true;
  return lock;
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t found = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_CASE("A purl has everything that means something to it encoded") {
  CHECK(deb_purl("libssl3", "3.0.14-1~deb12u1", "amd64", "debian-12") ==
        "pkg:deb/debian/libssl3@3.0.14-1~deb12u1?arch=amd64&distro=debian-12");
  CHECK(deb_purl("attr", "1:2.4.47-2+b1", "amd64", "") == "pkg:deb/debian/attr@1:2.4.47-2%2Bb1?arch=amd64");
  CHECK(deb_purl("libstdc++6", "12", "", "ubuntu-24.04") ==
        "pkg:deb/ubuntu/libstdc%2B%2B6@12?distro=ubuntu-24.04");
  CHECK(deb_purl("a", "", "", "") == "pkg:deb/debian/a");
  CHECK(purl_encode("a@b?c#d/e%f g\xff") == "a%40b%3Fc%23d%2Fe%25f%20g%FF");
}

TEST_CASE("An inventory has each file once, with what its package needs") {
  const Lock lock = sample();
  const Inventory all = inventory_of(lock, false);
  REQUIRE(all.packages.size() == 3);
  CHECK(all.packages[0].name == "libthing++1");
  CHECK(all.packages[1].name == "thing");
  CHECK(all.packages[2].name.empty());
  CHECK(all.packages[1].depends == std::set<std::size_t>{0});
  CHECK(all.packages[1].asked_for);
  CHECK_FALSE(all.packages[0].asked_for);
  CHECK(all.package_of.size() == 3);
  CHECK(inventory_of(lock, true).package_of.size() == 4);
}

TEST_CASE("CycloneDX: the same lock gives the same bytes, another one another serial number, no secret") {
  const Lock lock = sample();
  const auto text = cyclonedx({lock, 3, 0});
  REQUIRE(text);
  CHECK(*text == cyclonedx({lock, 3, 0}).value());
  CHECK(text->find("/a/secret") == std::string::npos);
  const auto document = nlohmann::json::parse(*text);
  CHECK(document["metadata"]["timestamp"] == "1970-01-01T00:00:00Z");
  CHECK(document["components"][0]["purl"] ==
        "pkg:deb/debian/libthing%2B%2B1@1:2.0%2Bb1~rc1-1?arch=amd64&distro=debian-12");
  Lock other = lock;
  other.entries.back().mode = 0600;
  other.tree_hash = tree_hash(other.entries);
  CHECK(nlohmann::json::parse(cyclonedx({other, 3, 0}).value())["serialNumber"] != document["serialNumber"]);
}

TEST_CASE("An SVG has every entry, and no name breaks out of its place") {
  const std::string svg = graph_svg(sample());
  CHECK(svg.find("<b>") == std::string::npos);
  CHECK(svg.find("/a/&lt;b&gt;&amp;&quot;c&quot; d]]&gt;\\x0a\\xff\\#=") != std::string::npos);
  CHECK(svg.find("/a/link -&gt; &lt;target&gt; with space") != std::string::npos);
  CHECK(svg.find("file &lt;x&gt;&amp;") != std::string::npos);
  for (const LockEntry& entry : sample().entries)
    if (entry.path != evil) CHECK(svg.find("<title>" + entry.path) != std::string::npos);
  CHECK(count(svg, "<title>") == count(svg, "</title>"));
}

TEST_CASE("DOT has every entry, and quotes what would end a string") {
  const std::string dot = graph_dot(sample());
  CHECK(dot.find(R"("/a/<b>&\"c\" d]]>\\x0a\\xff\\#=")") != std::string::npos);
  CHECK(dot.find(R"("/a/prog" -> "/a/lib" [tooltip="needed lib"])") != std::string::npos);
  for (const LockEntry& entry : sample().entries)
    if (entry.path != evil) CHECK(dot.find("\"" + entry.path + "\" [label=") != std::string::npos);
}

TEST_CASE("As text, each file stands once, below what brought it in") {
  const std::string text = graph_text(sample());
  CHECK(text.starts_with("thing  4 files from 2 packages, 3.9 KiB; 2 directories and 1 link besides\n"));
  CHECK(count(text, "/a/lib ") == 1);
  CHECK(text.find("/a/prog ") < text.find("/a/lib "));
  CHECK(count(text, "\n") == static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')));
  CHECK(text.find("\xff") == std::string::npos);
}

TEST_CASE("mtree: no secret unless asked for, and names that cannot end a word") {
  const std::string text = export_mtree(sample(), {false, 0});
  CHECK(text.starts_with("#mtree\n. type=dir mode=0755 uid=0 gid=0\n"));
  CHECK(text.find(
            "./a/<b>&\"c\"\\040d\\135\\135>\\012\\377\\134\\043\\075 type=file size=1000 sha256digest=") !=
        std::string::npos);
  CHECK(text.find("./a/link type=link link=<target>\\040with\\040space mode=0644") != std::string::npos);
  CHECK(text.find("./a/null type=char device=native,1,3 ") != std::string::npos);
  CHECK(text.find("secret") == std::string::npos);
  CHECK(export_mtree(sample(), {true, 0}).find("./a/secret ") != std::string::npos);
}

TEST_CASE("All chains: the shortest first, none twice, no circle, and no more than asked for") {
  // top <- a <- c, top <- b <- c, a <-> b
  const Reasons reasons = {{"/a", {{"binary", "", "x"}, {"needed", "/b", ""}}},
                           {"/b", {{"binary", "", "y"}, {"needed", "/a", ""}}},
                           {"/c", {{"needed", "/a", ""}, {"needed", "/b", ""}, {"needed", "/c", ""}}},
                           {"/lost", {{"needed", "/nowhere", ""}}}};
  const Chains all = all_chains(reasons, "/c", 10);
  CHECK(all.complete);
  REQUIRE(all.chains.size() == 4);
  CHECK(all.chains[0].size() == 2);
  CHECK(all.chains[0].back().path == "/a");
  CHECK(all.chains[3].size() == 3);
  CHECK_FALSE(all_chains(reasons, "/c", 3).complete);
  CHECK(all_chains(reasons, "/c", 3).chains.size() == 3);
  CHECK(all_chains(reasons, "/lost", 3).chains.empty());
}

TEST_CASE("All chains of a thicket end in bounded time and memory") {
  Reasons reasons;
  for (int i = 0; i < 60; ++i)
    for (int j = 0; j < 60; ++j)
      if (i != j) reasons["/" + std::to_string(i)].push_back({"needed", "/" + std::to_string(j), ""});
  CHECK(all_chains(reasons, "/0", 100).chains.empty());
  reasons["/59"].push_back({"binary", "", ""});
  const Chains some = all_chains(reasons, "/0", 100);
  CHECK(some.chains.size() >= 1);
  CHECK_FALSE(some.complete);
}
