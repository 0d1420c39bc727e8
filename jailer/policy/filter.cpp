#include <linux/capability.h>

#include "jailer/manifest/reader.h"
#include "jailer/manifest/suggest.h"
#include "jailer/policy/compiler.h"
#include "jailer/policy/policy.h"
#include "supervisor/base/quote.h"

namespace jail {

Result<policy::Policy> read_policy(const Instance& instance, const manifest::Manifest& manifest) {
  policy::Policy policy;
  std::vector<std::string> problems;
  std::string hint;
  const auto add = [&](const std::string& name, const std::string& place, const std::string& group) {
    if (policy::known_call(name)) {
      policy.calls.insert(name);
      return;
    }
    problems.push_back(fmt::format("{}unknown system call {}{}{}", manifest.where(place), quote(name, 64),
                                   group.empty() ? "" : " in " + group,
                                   manifest::did_you_mean(name, policy::call_names())));
  };
  std::vector<std::string> wanted = manifest.sandbox.syscalls;
  if (wanted.empty()) wanted.emplace_back("@default");
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const std::string place = fmt::format("sandbox.syscalls[{}]", i);
    if (!wanted[i].starts_with('@')) {
      add(wanted[i], place, {});
      continue;
    }
    const auto group = manifest::load_syscall_group(instance, wanted[i]);
    if (!group) {
      problems.push_back(manifest.where(place) + group.error().message);
      hint = group.error().hint;
      continue;
    }
    for (const std::string& name : *group) add(name, place, wanted[i]);
  }
  if (!problems.empty()) return with_hint(fail(Exit::manifest, "{}", fmt::join(problems, "\n")), hint);
  for (const std::string& capability : manifest.sandbox.capabilities)
    policy.packet_sockets = policy.packet_sockets || capability_number(capability) == CAP_NET_RAW;
  return policy;
}

Result<std::string> compile_filter(const Instance& instance, const manifest::Manifest& manifest) {
  JAIL_TRY(policy, read_policy(instance, manifest));
  return policy::compile(policy);
}

}  // namespace jail
