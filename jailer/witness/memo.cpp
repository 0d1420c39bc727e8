#include "jailer/witness/memo.h"

#include <fcntl.h>

#include <algorithm>
#include <optional>

#include "jailer/digest/digest.h"
#include "jailer/witness/fields.h"
#include "jailer/witness/maker.h"
#include "supervisor/base/io.h"

namespace jail {
namespace {

constexpr std::string_view head = "jail-memo 1";
constexpr std::size_t max_size = 64UL << 20U;

}  // namespace

std::string memo_file(const std::string& jail) {
  const std::size_t at = jail.find('@');
  return "memo-" + (at == std::string::npos ? jail : jail.substr(0, at + 1));
}

Memo Memo::load(const Instance& instance, const std::string& jail) {
  Memo memo;
  const auto bytes = read_file_at(AT_FDCWD, instance.store() + "/" + memo_file(jail), max_size, false);
  if (!bytes) return memo;
  FieldReader in(*bytes);
  const bool ours = in.text() == head;
  const std::string_view sum = in.text();
  // No power cut may make a filter of what was on its way to the disk.
  if (!ours || !in.good() || sum != sha256_hex(in.rest())) return memo;
  std::size_t size = 0;
  in.number(size);
  if (in.bytes(size) != maker_of(instance)) return memo;
  while (in.good() && !in.done()) {
    const std::string name(in.text());
    in.number(size);
    memo.answers_[name].text = in.bytes(size);
  }
  return in.good() ? std::move(memo) : Memo();
}

const std::string* Memo::find(const std::string& name) {
  const auto found = answers_.find(name);
  if (found == answers_.end()) return nullptr;
  found->second.used = true;
  return &found->second.text;
}

void Memo::put(const std::string& name, std::string answer) {
  Answer& slot = answers_[name];
  changed_ = changed_ || slot.text != answer;
  slot = {std::move(answer), true};
}

void Memo::save(const Instance& instance, const std::string& jail, int store) const {
  const bool unused =
      std::any_of(answers_.begin(), answers_.end(), [](const auto& one) { return !one.second.used; });
  if (!changed_ && !unused) return;
  FieldWriter out;
  out.sized(maker_of(instance));
  for (const auto& [name, answer] : answers_) {
    if (!answer.used) continue;
    out.text(name);
    out.sized(answer.text);
  }
  FieldWriter whole;
  whole.text(head);
  whole.text(sha256_hex(out.bytes));
  (void)replace_file_at(store, memo_file(jail), whole.bytes + out.bytes, 0600, false);
}

}  // namespace jail
