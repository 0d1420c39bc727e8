// SPDX 2.3: the jail as a package that holds all files, and the Debian packages that they were expanded from.
// Of those only a part of the files is here, so that they are not "analyzed" in SPDX's sense.
#include <fcntl.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "jailer/tree/lock_text.h"
#include "jailer/views/inventory.h"
#include "jailer/views/locked_file.h"
#include "jailer/views/sbom.h"

namespace jail::views {
namespace {

using nlohmann::json;
using tree::to_text;

constexpr const char* document_id = "SPDXRef-DOCUMENT";
constexpr const char* jail_id = "SPDXRef-Jail";

class Document {
 public:
  Document(const SbomInput& input, const tree::RootDir& tree)
      : input_(input), tree_(tree), all_(inventory_of(input.lock, false)) {}

  Result<std::string> text() {
    JAIL_TRY(uuid, uuid_of(input_.lock, "jail-spdx-v1"));
    JAIL_CHECK(add_files());
    JAIL_TRY(code, verification_code());
    add_jail(code);
    for (std::size_t i = 0; i < all_.packages.size(); ++i) add_package(i);
    add_needs();
    const json document = {{"spdxVersion", "SPDX-2.3"},
                           {"dataLicense", "CC0-1.0"},
                           {"SPDXID", document_id},
                           {"name", "jail " + input_.lock.name},
                           {"documentNamespace", "urn:uuid:" + uuid},
                           {"creationInfo",
                            {{"created", utc(input_.created)},
                             {"creators", json::array({std::string("Tool: jail-") + JAIL_VERSION})}}},
                           {"documentDescribes", json::array({jail_id})},
                           {"packages", packages_},
                           {"files", files_},
                           {"relationships", relationships_}};
    return document.dump(2) + "\n";
  }

 private:
  static std::string package_id(std::size_t index) { return fmt::format("SPDXRef-Package-{}", index + 1); }
  std::string file_id(const LockEntry* file) const { return ids_.at(file); }

  void relate(const std::string& from, const char* type, const std::string& to) {
    relationships_.push_back(
        {{"spdxElementId", from}, {"relationshipType", type}, {"relatedSpdxElement", to}});
  }

  Result<void> add_files() {
    std::vector<const LockEntry*> files;
    for (const auto& [file, package] : all_.package_of) files.push_back(file);
    std::sort(files.begin(), files.end(), [](const auto* a, const auto* b) { return a->path < b->path; });
    JAIL_TRY(sha1, sha1_of_locked(tree_, files));
    for (std::size_t i = 0; i < files.size(); ++i) {
      const LockEntry& file = *files[i];
      ids_[&file] = fmt::format("SPDXRef-File-{}", i + 1);
      sha1_.push_back(sha1[i]);
      files_.push_back(
          {{"SPDXID", ids_[&file]},
           {"fileName", "." + to_text(file.path)},
           {"checksums", json::array({{{"algorithm", "SHA1"}, {"checksumValue", sha1[i]}},
                                      {{"algorithm", "SHA256"}, {"checksumValue", file.sha256}}})},
           {"licenseConcluded", "NOASSERTION"},
           {"copyrightText", "NOASSERTION"}});
    }
    return {};
  }

  /// Of all files, as SPDX 2.3 (7.9) says: SHA-1 of their sorted SHA-1s.
  [[nodiscard]] Result<std::string> verification_code() const {
    std::vector<std::string> sorted = sha1_;
    std::sort(sorted.begin(), sorted.end());
    std::string joined;
    for (const std::string& one : sorted) joined += one;
    return sha1_hex(joined);
  }

  void add_jail(const std::string& code) {
    json files = json::array();
    for (const json& file : files_) files.push_back(file.at("SPDXID"));
    packages_.push_back({{"SPDXID", jail_id},
                         {"name", input_.lock.name},
                         {"versionInfo", input_.lock.tree_hash},
                         {"primaryPackagePurpose", "CONTAINER"},
                         {"downloadLocation", "NOASSERTION"},
                         {"filesAnalyzed", true},
                         {"packageVerificationCode", {{"packageVerificationCodeValue", code}}},
                         {"licenseConcluded", "NOASSERTION"},
                         {"licenseInfoFromFiles", json::array({"NOASSERTION"})},
                         {"licenseDeclared", "NOASSERTION"},
                         {"copyrightText", "NOASSERTION"},
                         {"hasFiles", files}});
    relate(document_id, "DESCRIBES", jail_id);
  }

  void add_package(std::size_t index) {
    const Package& package = all_.packages[index];
    if (package.name.empty()) return;
    packages_.push_back({{"SPDXID", package_id(index)},
                         {"name", package.name},
                         {"versionInfo", package.version},
                         {"primaryPackagePurpose", package.asked_for ? "APPLICATION" : "LIBRARY"},
                         {"downloadLocation", "NOASSERTION"},
                         {"filesAnalyzed", false},
                         {"licenseConcluded", "NOASSERTION"},
                         {"licenseDeclared", "NOASSERTION"},
                         {"copyrightText", "NOASSERTION"},
                         {"externalRefs", json::array({{{"referenceCategory", "PACKAGE-MANAGER"},
                                                        {"referenceType", "purl"},
                                                        {"referenceLocator", package.purl}}})}});
    relate(jail_id, "DEPENDS_ON", package_id(index));
    for (const std::size_t other : package.depends)
      if (!all_.packages[other].name.empty()) relate(package_id(index), "DEPENDS_ON", package_id(other));
    for (const LockEntry* file : package.files)
      relate(file_id(file), "EXPANDED_FROM_ARCHIVE", package_id(index));
  }

  void add_needs() {
    std::set<std::pair<std::string, std::string>> known;
    for (const Need& need : all_.needs) {
      const bool links = need.kind == "needed";
      if (!known.emplace(file_id(need.from), file_id(need.to)).second) continue;
      relate(file_id(need.from), links ? "DYNAMIC_LINK" : "DEPENDS_ON", file_id(need.to));
    }
  }

  const SbomInput& input_;
  const tree::RootDir& tree_;
  Inventory all_;
  std::map<const LockEntry*, std::string> ids_;
  std::vector<std::string> sha1_;
  json files_ = json::array();
  json packages_ = json::array();
  json relationships_ = json::array();
};

}  // namespace

Result<std::string> spdx(const SbomInput& input, const tree::RootDir& tree) {
  return Document(input, tree).text();
}

}  // namespace jail::views
