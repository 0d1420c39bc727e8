#include "jailer/witness/maker.h"

#include "jailer/witness/sight.h"

namespace jail {

std::string maker_of(const Instance& instance) {
  const auto self = see("/proc/self/exe", LookAt::file);
  FieldWriter out;
  out.text(JAIL_VERSION);
  put(out, self.value_or(Sight{}));
  for (const std::string& part : {instance.state, instance.run, instance.log, instance.etc}) out.text(part);
  for (const std::string& directory : instance.manifest_dirs) out.text(directory);
  return std::move(out.bytes);
}

}  // namespace jail
