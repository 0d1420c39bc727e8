#include "jailer/elf/remembered.h"

#include <concepts>
#include <utility>

#include "jailer/witness/sight.h"

namespace jail::elf {
namespace {

constexpr std::size_t most_looks = 50000;  // of a plan that grows from build to build

// Each struct's fields once, in their order, for writing and for reading: visit(archive, value).

template <class Archive>
void visit(Archive& archive, Hop& hop) {
  archive(hop.path, hop.target);
}
template <class Archive>
void visit(Archive& archive, Located& located) {
  archive(located.path, located.real, located.hops);
}
template <class Archive>
void visit(Archive& archive, CacheLine& line) {
  archive(line.hwcap_name, line.hwcap);
}
template <class Archive>
void visit(Archive& archive, Variant& variant) {
  archive(variant.path, variant.subdirectory, variant.file, variant.cached);
}
// Without `tried`: who wants that asks anew.
template <class Archive>
void visit(Archive& archive, Object& object) {
  archive(object.name, object.path, object.file, object.soname, object.needed_by, object.rule,
          object.in_default_directory, object.cached, object.variants, object.dlopen_notes);
}
template <class Archive>
void visit(Archive& archive, Closure& closure) {
  archive(closure.objects, closure.interpreter, closure.interpreter_file, closure.imports, closure.notes,
          closure.is_static, closure.cache_flags, closure.big_endian, closure.elsewhere, closure.audit);
}
template <class Archive>
void visit(Archive& archive, Abi& abi) {
  archive(abi.elf_class, abi.data, abi.machine);
}
template <class Archive>
void visit(Archive& archive, Subdirectory& subdirectory) {
  archive(subdirectory.name, subdirectory.capabilities);
}
template <class Archive>
void visit(Archive& archive, LoaderPolicy& policy) {
  archive(policy.abi, policy.interpreter, policy.system_dirs, policy.lib, policy.platform, policy.vdso,
          policy.cache, policy.cache_flags, policy.subdirectories, policy.from_loader);
}

class Saver {
 public:
  template <class... Fields>
  void operator()(Fields&... fields) {
    (one(fields), ...);
  }
  FieldWriter out;

 private:
  void one(std::string& text) { out.sized(text); }
  template <std::integral Number>
  void one(Number& number) {
    out.number(static_cast<std::int64_t>(number));
  }
  void one(std::uint64_t& number) { out.number(number); }
  template <class T>
  void one(std::vector<T>& all) {
    out.number(all.size());
    for (T& each : all) one(each);
  }
  template <class T>
  void one(std::optional<T>& maybe) {
    out.number(maybe ? 1 : 0);
    if (maybe) one(*maybe);
  }
  template <class T>
  void one(T& value) {
    visit(*this, value);
  }
};

class Loader {
 public:
  explicit Loader(FieldReader& in) : in_(in) {}
  template <class... Fields>
  void operator()(Fields&... fields) {
    (one(fields), ...);
  }

 private:
  void one(std::string& text) {
    std::size_t size = 0;
    in_.number(size);
    text = in_.bytes(size);
  }
  template <std::integral Number>
  void one(Number& number) {
    std::int64_t value = 0;
    in_.number(value);
    number = static_cast<Number>(value);
  }
  void one(std::uint64_t& number) { in_.number(number); }
  template <class T>
  void one(std::vector<T>& all) {
    std::size_t count = 0;
    in_.number(count);
    for (std::size_t i = 0; i < count && in_.good(); ++i) one(all.emplace_back());
  }
  template <class T>
  void one(std::optional<T>& maybe) {
    bool there = false;
    one(there);
    if (there) one(maybe.emplace());
  }
  template <class T>
  void one(T& value) {
    visit(*this, value);
  }
  FieldReader& in_;
};

template <class Answer>
void save(Saver& saver, const std::map<std::string, Answer>& answers) {
  saver.out.number(answers.size());
  for (const auto& [question, answer] : answers) {
    saver.out.sized(question);
    Answer copy = answer;
    saver(copy);
  }
}

template <class Answer>
void load(FieldReader& in, std::map<std::string, Answer>& answers) {
  Loader loader(in);
  std::size_t count = 0;
  in.number(count);
  for (std::size_t i = 0; i < count && in.good(); ++i) {
    std::string question;
    loader(question);
    loader(answers[std::move(question)]);
  }
}

template <class Answer>
const Answer* find(const std::map<std::string, Answer>& answers, const std::string& question) {
  const auto found = answers.find(question);
  return found == answers.end() ? nullptr : &found->second;
}

}  // namespace

void Remembered::recall(std::string_view text, std::string_view watched, Looks& looks) {
  FieldReader in(text);
  Remembered then;
  if (in.text() != watched) return;
  load(in, then.closures_);
  load(in, then.policies_);
  Looks seen;
  if (!in.good() || !same_sights(in, &seen)) return;
  looks.add(seen);
  *this = std::move(then);
  recalled_ = text;
}

const Closure* Remembered::closure(const std::string& question) const {
  return find(closures_, question);
}
const LoaderPolicy* Remembered::policy(const std::string& question) const {
  return find(policies_, question);
}

void Remembered::add(const std::string& question, const Closure& closure) {
  closures_[question] = closure;
  recalled_.clear();
}
void Remembered::add(const std::string& question, const LoaderPolicy& policy) {
  policies_[question] = policy;
  recalled_.clear();
}

std::string Remembered::to_text(std::string_view watched, const Looks& looks) const {
  if (!recalled_.empty()) return recalled_;
  const auto sights = looks.all().size() > most_looks ? std::nullopt : sights_of(looks);
  if (!sights) return {};
  Saver saver;
  saver.out.text(watched);
  save(saver, closures_);
  save(saver, policies_);
  return saver.out.bytes + *sights;
}

}  // namespace jail::elf
