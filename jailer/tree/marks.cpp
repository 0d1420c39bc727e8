#include "jailer/tree/marks.h"

#include <fcntl.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "jailer/tree/state.h"
#include "jailer/tree/write_error.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail {
namespace {

using nlohmann::json;

constexpr std::size_t max_note = std::size_t{64} << 10U;
constexpr std::size_t most_reasons = 64;
constexpr std::size_t longest_reason = 400;
constexpr int patience = 20;  ///< looks at a lock that somebody has for a moment only

Result<UniqueFd> open_notes(const Instance& instance, const std::string& name) {
  if (!valid_name(name)) return fail(Exit::usage, "{} cannot be the name of a jail", quote(name));
  auto jails = tree::open_state_part(instance, "jails", false);
  auto dir = jails ? tree::open_private(jails->get(), name, instance.jail(name), false)
                   : Result<UniqueFd>(tl::unexpected(jails.error()));
  if (!dir && dir.error().exit == Exit::no_input)
    return with_hint(fail(Exit::no_input, "{}: this jail has not been built", name),
                     fmt::format("run: jail build {}", name));
  return dir;
}

std::string mark_text(const std::vector<std::string>& reasons) {
  std::string text;
  for (std::size_t i = 0; i < reasons.size() && i < most_reasons; ++i)
    text += escape(reasons[i].substr(0, longest_reason)) + "\n";
  if (reasons.size() > most_reasons) text += fmt::format("and {} more\n", reasons.size() - most_reasons);
  return text.empty() ? "it is not said why\n" : text;
}

Result<void> replace_note(int dir, const char* name, const std::string& text, bool durable,
                          const std::string& path) {
  auto written = replace_file_at(dir, name, text, 0600, durable);
  if (!written) written.error().message = fmt::format("{}/{}", path, written.error().message);
  return written;
}

unsigned long number_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_unsigned() ? found->get<unsigned long>() : 0;
}

/// One that is damaged is none: `current` is whole whatever it says.
RefreshNote read_note(int dir) {
  RefreshNote note;
  const auto text = read_file_at(dir, tree::refresh_note, max_note, false);
  const json object = text ? json::parse(*text, nullptr, /*allow_exceptions=*/false) : json();
  if (!object.is_object() || number_of(object, "version") != 1) return note;
  note.from = number_of(object, "from");
  note.to = number_of(object, "to");
  note.failed = number_of(object, "failed");
  if (const auto runs = object.find("runs"); runs != object.end() && runs->is_boolean())
    note.runs = runs->get<bool>();
  if (const auto why = object.find("why"); why != object.end() && why->is_string())
    note.why = why->get<std::string>();
  return note;
}

/// For this process, for a moment: whether nobody has the lock.
bool is_free(int dir) {
  const bool taken = ::flock(dir, LOCK_SH | LOCK_NB) == 0;
  if (taken) (void)::flock(dir, LOCK_UN);
  return taken;
}

}  // namespace

Result<void> mark_stale(const Instance& instance, const std::string& name,
                        const std::vector<std::string>& reasons) {
  JAIL_TRY(dir, open_notes(instance, name));
  const std::string text = mark_text(reasons);
  const auto there = read_file_at(dir.get(), tree::stale_mark, max_note, false);
  if (there && *there == text) return {};
  return replace_note(dir.get(), tree::stale_mark, text, false, instance.jail(name));
}

Result<void> clear_stale(const Instance& instance, const std::string& name) {
  JAIL_TRY(dir, open_notes(instance, name));
  if (::unlinkat(dir.get(), tree::stale_mark, 0) == 0 || errno == ENOENT) return {};
  return tree::fail_write(errno, "{}/{}: cannot remove", instance.jail(name), tree::stale_mark);
}

std::vector<std::string> stale_reasons(const Instance& instance, const std::string& name) {
  const auto dir = open_notes(instance, name);
  const auto text = dir ? read_file_at(dir->get(), tree::stale_mark, max_note, false)
                        : Result<std::string>(tl::unexpected(dir.error()));
  std::vector<std::string> reasons;
  for (std::string_view rest = text ? *text : std::string_view(); !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    if (end != 0) reasons.push_back(escape(rest.substr(0, end)));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return reasons;
}

bool has_notes(const Instance& instance, const std::string& name) {
  for (const char* note : {tree::stale_mark, tree::refresh_note})
    if (::faccessat(AT_FDCWD, fmt::format("{}/{}", instance.jail(name), note).c_str(), F_OK,
                    AT_SYMLINK_NOFOLLOW) == 0)
      return true;
  return false;
}

Result<RefreshLock> RefreshLock::take(const Instance& instance, const std::string& name) {
  JAIL_CHECK(tree::demand_root("refresh a jail"));
  JAIL_TRY(dir, open_notes(instance, name));
  for (int look = 0; ::flock(dir.get(), LOCK_EX | LOCK_NB) != 0; ++look) {
    if (errno != EWOULDBLOCK) return fail_errno(Exit::io, errno, "{}: cannot lock", instance.jail(name));
    if (look == patience)
      return with_hint(fail(Exit::busy, "{}: another command refreshes this jail", name),
                       "wait until it is done, then try again");
    const timespec moment{0, 10'000'000};
    ::nanosleep(&moment, nullptr);
  }
  return RefreshLock(std::move(dir), instance.jail(name));
}

RefreshNote RefreshLock::read() const {
  return read_note(dir_.get());
}

Result<void> RefreshLock::write(const RefreshNote& note) const {
  if (note == read()) return {};
  if (note == RefreshNote()) {
    if (::unlinkat(dir_.get(), tree::refresh_note, 0) == 0 || errno == ENOENT) return {};
    return tree::fail_write(errno, "{}/{}: cannot remove", path_, tree::refresh_note);
  }
  const json object = {{"version", 1U},     {"from", note.from},     {"to", note.to},
                       {"runs", note.runs}, {"failed", note.failed}, {"why", note.why}};
  return replace_note(dir_.get(), tree::refresh_note,
                      object.dump(-1, ' ', false, json::error_handler_t::replace) + "\n", true, path_);
}

std::vector<std::string> refresh_remarks(const Instance& instance, const std::string& name) {
  const auto dir = open_notes(instance, name);
  const RefreshNote note = dir ? read_note(dir->get()) : RefreshNote();
  std::vector<std::string> remarks;
  if (note.from != 0 && is_free(dir->get()))
    remarks.push_back(fmt::format("a refresh from generation {} on was interrupted", note.from));
  if (note.failed != 0)
    remarks.push_back(
        fmt::format("generation {} was tried and does not serve: {}", note.failed, escape(note.why)));
  return remarks;
}

}  // namespace jail
