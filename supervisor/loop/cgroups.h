// One cgroup (v2) a service: BASE/jail-ID/NAME.jail, BASE being our own. It is taken over by the next jaild
// by its name, made anew for each life of the service, and removed when the service is stopped. A host
// without cgroup v2 is fine: then the pid namespace alone holds the processes together.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "supervisor/base/cgroup_place.h"
#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/spec/launch_spec.h"

namespace jail::loop {

/// The cgroup of one service.
class Cgroup {
 public:
  [[nodiscard]] int fd() const { return dir_.get(); }
  [[nodiscard]] bool valid() const { return dir_.valid(); }
  /// As sock_diag reports it for a socket that was made inside.
  [[nodiscard]] std::uint64_t id() const { return id_; }
  /// Whether any process is inside, below included.
  [[nodiscard]] bool populated() const;
  /// SIGKILL to all inside (Linux 5.14); does nothing where the kernel cannot.
  void kill_all() const;
  /// How many processes the kernel killed for want of memory; 0 without the memory controller.
  [[nodiscard]] std::uint64_t oom_kills() const;

 private:
  friend class Cgroups;
  UniqueFd dir_;
  std::uint64_t id_ = 0;
};

class Cgroups {
 public:
  /// `id` tells one instance from another. Without cgroup v2 the result is empty and open() gives empty ones.
  [[nodiscard]] static Cgroups find(const std::string& id);

  /// Makes or takes up the cgroup of `name`.
  [[nodiscard]] Result<Cgroup> open(const std::string& name) const;
  /// A new cgroup for a new life; the old one if processes are left in it. One that cgroup.kill was ever
  /// written to is of no use: since Linux 6.14 what is cloned into it from outside is killed at once (the
  /// kernel compares its count of kills with that of the parent's cgroup).
  [[nodiscard]] Result<Cgroup> renew(const std::string& name) const;
  /// Sets limits; what this host cannot limit comes back in words, empty if nothing.
  [[nodiscard]] std::string limit(const Cgroup& cgroup, const Limits& limits) const;
  /// Removes the cgroup of `name`, which is empty.
  void remove(const std::string& name) const;
  /// Removes our own directory; not while services have cgroups in it.
  void remove_base() const;
  [[nodiscard]] bool available() const { return base_.valid(); }

 private:
  UniqueFd own_;
  UniqueFd base_;
  std::string base_name_;
};

}  // namespace jail::loop
