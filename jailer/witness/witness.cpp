#include "jailer/witness/witness.h"

#include <string_view>

#include "jailer/witness/maker.h"
#include "jailer/witness/sight.h"
#include "supervisor/base/io.h"
#include "supervisor/spec/generation.h"

namespace jail {
namespace {

constexpr std::string_view head = "jail-witness 1";
constexpr std::size_t max_size = 64UL << 20U;

void put_head(FieldWriter& out, const Instance& instance, const Standing& standing) {
  out.text(head);
  const std::string by = maker_of(instance);
  out.number(by.size());
  out.bytes += by;
  out.number(standing.files);
  out.number(standing.bytes);
  out.number(standing.warnings.size());
  for (const std::string& warning : standing.warnings) out.text(warning);
}

/// Whether the head is one for this program and instance; fills `standing`.
bool take_head(FieldReader& in, const Instance& instance, Standing& standing) {
  if (in.text() != head) return false;
  std::size_t size = 0;
  in.number(size);
  const std::string by = maker_of(instance);
  in.expect(by);
  std::size_t warnings = 0;
  in.number(standing.files);
  in.number(standing.bytes);
  in.number(warnings);
  for (std::size_t i = 0; i < warnings && in.good(); ++i) standing.warnings.emplace_back(in.text());
  return in.good() && size == by.size();
}

}  // namespace

std::optional<Standing> still_standing(const Instance& instance, const std::string& name) {
  const auto current = generation::open_current(instance, name);
  if (!current) return std::nullopt;
  const auto bytes = read_file_at(current->dir.get(), witness_name, max_size, false);
  if (!bytes) return std::nullopt;
  Standing standing;
  standing.generation = current->number;
  FieldReader in(*bytes);
  if (!take_head(in, instance, standing)) return std::nullopt;
  return same_sights(in) ? std::optional(std::move(standing)) : std::nullopt;
}

void leave_witness(const Instance& instance, int generation, const Standing& standing, const Looks& looks) {
  const auto sights = sights_of(looks);
  if (!sights) return;
  FieldWriter out;
  put_head(out, instance, standing);
  out.bytes += *sights;
  (void)replace_file_at(generation, witness_name, out.bytes, 0600, false);
}

}  // namespace jail
