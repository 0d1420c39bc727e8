// What jaild must remember when it is killed at any instant: a JSON snapshot in a memfd that the keeper
// holds.
//
// The memfd has a header with two slots. A save writes the text where the valid slot's does not lie, then the
// other slot: one of the two is whole at any instant. Everything has a checksum; what does not fit is passed
// over.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/service/machine.h"

namespace jail::loop {

class StateFile {
 public:
  /// Takes up `inherited`, or makes a new one when it is empty.
  [[nodiscard]] static Result<StateFile> open(UniqueFd inherited);

  /// The text that was saved last; nothing in a new file. An error (Exit::io) when both slots are damaged.
  [[nodiscard]] Result<std::optional<std::string>> load() const;
  [[nodiscard]] Result<void> save(std::string_view text);
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  struct Slot {
    std::uint64_t sequence = 0;  ///< 0: never written
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    std::uint64_t text_sum = 0;
    std::uint64_t slot_sum = 0;  ///< of the fields above
  };
  [[nodiscard]] std::optional<std::string> text_of(const Slot& slot, std::uint64_t file_size) const;
  [[nodiscard]] static std::uint64_t sum_of(const Slot& slot);

  UniqueFd fd_;
  std::array<Slot, 2> slots_{};
  std::size_t valid_ = 0;
  bool unwritten_ = false;  ///< no slot was ever written
};

/// What is remembered of one service.
struct ServiceState {
  service::Snapshot machine;
  std::uint64_t generation = 0;  ///< that runs; 0: none
  pid_t init_pid = 0;
  std::string pid_namespace;  ///< of the jail
  bool operator==(const ServiceState&) const = default;
};

[[nodiscard]] std::string to_json(const std::string& name, const ServiceState& state);
/// `{"services":[...],"version":1}` of what to_json() gave. One service that cannot be read is an error: it
/// is all or nothing.
[[nodiscard]] Result<std::map<std::string, ServiceState>> states_from_json(std::string_view text);

}  // namespace jail::loop
