#include "jailer/tree/closure_check.h"

#include "jailer/digest/digest.h"
#include "jailer/elf/resolver.h"
#include "supervisor/base/quote.h"

namespace jail::tree {
namespace {

/// The file of the source root that stands at `path` of the tree; empty for none.
std::string source_of(const Plan& plan, const std::string& path) {
  const auto entry = plan.entries.find(path);
  return entry == plan.entries.end() ? std::string() : entry->second.source;
}

Result<void> check_one(const Plan& plan, elf::Resolver& inside, const std::string& program,
                       const std::vector<std::string>& expected) {
  const auto closure = inside.resolve(program, {.imports = false, .tried = false});
  if (!closure)
    return with_hint(fail(Exit::manifest, "{}: in the finished tree: {}", plan.name, closure.error().message),
                     "on the host it starts: the tree keeps something at another path than the host does");
  for (std::size_t i = 0; i < std::max(expected.size(), closure->objects.size()); ++i) {
    const std::string found =
        i < closure->objects.size() ? source_of(plan, closure->objects[i].file.real) : std::string();
    const std::string wanted = i < expected.size() ? expected[i] : std::string();
    if (found == wanted) continue;
    return with_hint(
        fail(Exit::manifest, "{}: in the finished tree {} would load {} where on the host it loads {}",
             plan.name, quote(program), found.empty() ? "nothing" : quote(found),
             wanted.empty() ? "nothing" : quote(wanted)),
        fmt::format("compare: jail deps --explain {}, and what the manifest puts where", program));
  }
  return {};
}

}  // namespace

std::string closures_fingerprint(const Plan& plan, const Lock& lock) {
  Sha256 hash;
  const auto say = [&hash](std::string_view field) {
    hash.update(field);
    hash.update(std::string_view("\0", 1));
  };
  for (const auto& [program, expected] : plan.closures) {
    say(program);
    for (const std::string& source : expected) say(source);
    say("");
  }
  for (const LockEntry& entry : lock.entries) {
    // Texts of the manifest in /etc, which no loader reads.
    const bool configuration = entry.type == EntryType::file && entry.source.empty() &&
                               entry.path.starts_with("/etc/") && !entry.path.starts_with("/etc/ld.so");
    if (configuration) continue;
    for (const std::string* field : {&entry.path, &entry.source, &entry.target}) say(*field);
    if (!entry.secret) say(entry.sha256);
    say(std::to_string(static_cast<int>(entry.type)));
  }
  return hash.hex();
}

Result<void> check_closures(const Plan& plan, const RootDir& tree) {
  if (plan.closures.empty()) return {};
  JAIL_TRY(inside, elf::Resolver::open(fmt::format("/proc/self/fd/{}", tree.fd())));
  for (const auto& [program, expected] : plan.closures)
    JAIL_CHECK(check_one(plan, inside, program, expected));
  return {};
}

}  // namespace jail::tree
