#include "supervisor/loop/state.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "supervisor/base/quote.h"
#include "supervisor/spec/instance.h"

namespace jail::loop {
namespace {

using nlohmann::json;
using service::Snapshot;

constexpr std::uint64_t text_start = 4096;
constexpr std::uint64_t max_text = 256U << 20U;

/// FNV-1a, 64 bits: finds what a crash or a flipped bit does; nobody but root can write here.
std::uint64_t checksum(const void* bytes, std::size_t size) {
  std::uint64_t sum = 0xcbf29ce484222325U;
  const auto* at = static_cast<const unsigned char*>(bytes);
  for (std::size_t i = 0; i < size; ++i) sum = (sum ^ at[i]) * 0x100000001b3U;
  return sum;
}

bool write_at(int fd, const void* bytes, std::size_t size, std::uint64_t offset) {
  const char* at = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t put = ::pwrite(fd, at, size, static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    at += put;
    size -= static_cast<std::size_t>(put);
    offset += static_cast<std::uint64_t>(put);
  }
  return true;
}

bool read_at(int fd, void* bytes, std::size_t size, std::uint64_t offset) {
  char* at = static_cast<char*>(bytes);
  while (size > 0) {
    const ssize_t got = ::pread(fd, at, size, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
    size -= static_cast<std::size_t>(got);
    offset += static_cast<std::uint64_t>(got);
  }
  return true;
}

// ---- the JSON form ----------------------------------------------------------------------------------------

std::int64_t nanoseconds(service::Time time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

service::Time time_from(const json& value) {
  return service::Time(std::chrono::nanoseconds(value.get<std::int64_t>()));
}

/// Calls `field(key, reference)` for each plain field, so that reading and writing cannot disagree.
template <class S, class Field>
void plain_fields(S& machine, Field field) {
  field("process", machine.process);
  field("running", machine.running);
  field("notified", machine.notified);
  field("listening", machine.listening);
  field("checked", machine.checked);
  field("reloading", machine.reloading);
  field("exit_known", machine.exit_known);
  field("failure", machine.failure);
  field("killed", machine.killed);
  field("exit_status", machine.exit_status);
  field("pid", machine.pid);
  field("restarts", machine.restarts);
  field("failures", machine.failures);
}

template <class S, class Field>
void text_fields(S& machine, Field field) {
  field("reason", machine.reason);
  field("waiting_for", machine.waiting_for);
  field("status_text", machine.status_text);
}

template <class S, class Field>
void time_fields(S& machine, Field field) {
  field("since", machine.since);
  field("started", machine.started);
  field("ready_at", machine.ready_at);
}

template <class S, class Field>
void optional_time_fields(S& machine, Field field) {
  field("deadline", machine.deadline);
  field("check_at", machine.check_at);
}

ServiceState state_from(const json& value) {
  ServiceState state;
  Snapshot& machine = state.machine;
  const auto found = service::state_from_name(value.at("state").get_ref<const std::string&>());
  const auto after = value.at("after").get<unsigned>();
  if (!found || after > 2) throw std::runtime_error("an unknown state");
  machine.state = *found;
  machine.after = static_cast<service::After>(after);
  plain_fields(machine, [&](const char* key, auto& field) { value.at(key).get_to(field); });
  text_fields(machine, [&](const char* key, std::string& field) { value.at(key).get_to(field); });
  time_fields(machine, [&](const char* key, service::Time& field) { field = time_from(value.at(key)); });
  optional_time_fields(machine, [&](const char* key, std::optional<service::Time>& field) {
    if (const auto at = value.find(key); at != value.end()) field = time_from(*at);
  });
  for (const json& time : value.at("recent")) machine.recent.push_back(time_from(time));
  value.at("generation").get_to(state.generation);
  value.at("init_pid").get_to(state.init_pid);
  value.at("pid_namespace").get_to(state.pid_namespace);
  return state;
}

}  // namespace

std::string to_json(const std::string& name, const ServiceState& state) {
  const Snapshot& machine = state.machine;
  json value;
  value["name"] = name;
  value["state"] = service::state_name(machine.state);
  value["after"] = static_cast<unsigned>(machine.after);
  plain_fields(machine, [&](const char* key, const auto& field) { value[key] = field; });
  // A daemon chooses some of these bytes; escaped they are ASCII or valid UTF-8 at the least.
  text_fields(machine, [&](const char* key, const std::string& field) { value[key] = field; });
  time_fields(machine, [&](const char* key, service::Time field) { value[key] = nanoseconds(field); });
  optional_time_fields(machine, [&](const char* key, const std::optional<service::Time>& field) {
    if (field) value[key] = nanoseconds(*field);
  });
  value["recent"] = json::array();
  for (const service::Time time : machine.recent) value["recent"].push_back(nanoseconds(time));
  value["generation"] = state.generation;
  value["init_pid"] = state.init_pid;
  value["pid_namespace"] = state.pid_namespace;
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<std::map<std::string, ServiceState>> states_from_json(std::string_view text) {
  std::map<std::string, ServiceState> states;
  try {
    const json root = json::parse(text);
    if (root.at("version").get<int>() != 1) return fail(Exit::config, "the state of another version");
    for (const json& value : root.at("services")) {
      const auto& name = value.at("name").get_ref<const std::string&>();
      if (!valid_name(name)) return fail(Exit::config, "the state names a service {}", quote(name));
      states.emplace(name, state_from(value));
    }
  } catch (const std::exception& error) {
    return fail(Exit::config, "the state cannot be read: {}", quote(error.what()));
  }
  return states;
}

// ---- the file ---------------------------------------------------------------------------------------------

std::uint64_t StateFile::sum_of(const Slot& slot) {
  return checksum(&slot, offsetof(Slot, slot_sum));
}

Result<StateFile> StateFile::open(UniqueFd inherited) {
  StateFile file;
  file.fd_ = std::move(inherited);
  if (!file.fd_) {
    file.fd_.reset(::memfd_create("jaild-state", MFD_CLOEXEC));
    if (!file.fd_) return fail_errno(Exit::host, errno, "memfd_create");
  }
  if (read_at(file.fd_.get(), file.slots_.data(), sizeof file.slots_, 0)) {
    // Zeros are no damage: the first save writes its text first, and was cut off before it wrote a slot.
    const auto* bytes = reinterpret_cast<const unsigned char*>(file.slots_.data());
    file.unwritten_ =
        std::all_of(bytes, bytes + sizeof file.slots_, [](unsigned char byte) { return byte == 0; });
  } else {
    file.slots_ = {};
  }
  struct stat status {};
  if (::fstat(file.fd_.get(), &status) != 0) return fail_errno(Exit::io, errno, "the state: cannot stat");
  const auto size = static_cast<std::uint64_t>(status.st_size);
  const bool first = file.text_of(file.slots_[0], size).has_value();
  const bool second = file.text_of(file.slots_[1], size).has_value();
  file.valid_ = second && (!first || file.slots_[1].sequence > file.slots_[0].sequence) ? 1 : 0;
  return file;
}

std::optional<std::string> StateFile::text_of(const Slot& slot, std::uint64_t file_size) const {
  if (slot.sequence == 0 || slot.slot_sum != sum_of(slot)) return std::nullopt;
  if (slot.size > max_text || slot.offset < text_start) return std::nullopt;
  // An empty text takes no place: the file may end before it.
  if (slot.size > 0 && (slot.offset > file_size || slot.size > file_size - slot.offset)) return std::nullopt;
  std::string text(slot.size, '\0');
  if (!read_at(fd_.get(), text.data(), text.size(), slot.offset)) return std::nullopt;
  if (checksum(text.data(), text.size()) != slot.text_sum) return std::nullopt;
  return text;
}

Result<std::optional<std::string>> StateFile::load() const {
  struct stat status {};
  if (::fstat(fd_.get(), &status) != 0) return fail_errno(Exit::io, errno, "the state: cannot stat");
  if (status.st_size == 0 || unwritten_) return std::optional<std::string>();
  auto text = text_of(slots_.at(valid_), static_cast<std::uint64_t>(status.st_size));
  if (!text) return fail(Exit::io, "the state that an earlier jaild left is damaged");
  return text;
}

Result<void> StateFile::save(std::string_view text) {
  if (text.size() > max_text)
    return fail(Exit::io, "the state cannot be saved: {} bytes are more than load() takes", text.size());
  const Slot& old = slots_.at(valid_);
  const bool keep = old.sequence != 0 && old.slot_sum == sum_of(old) && old.size <= max_text;
  Slot next;
  next.sequence = (keep ? old.sequence : 0) + 1;
  next.size = text.size();
  next.offset = text_start;
  if (keep && old.offset < text_start + text.size()) next.offset = old.offset + old.size;
  next.text_sum = checksum(text.data(), text.size());
  next.slot_sum = sum_of(next);
  const std::size_t target = 1 - valid_;
  if (!write_at(fd_.get(), text.data(), text.size(), next.offset) ||
      !write_at(fd_.get(), &next, sizeof next, target * sizeof(Slot)))
    return fail_errno(Exit::io, errno, "the state cannot be saved");
  unwritten_ = false;
  slots_.at(target) = next;
  valid_ = target;
  return {};
}

}  // namespace jail::loop
