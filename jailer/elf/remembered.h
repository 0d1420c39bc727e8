// What a Resolver has answered, in the form in which the next build of a jail can have it again: the answers,
// and every look that they were made from.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "jailer/elf/resolver.h"
#include "jailer/witness/looks.h"

namespace jail::elf {

class Remembered {
 public:
  /// Takes in what to_text() gave, if it was for the same `watched` symbols and everything that was looked at
  /// still is what it was; then `looks` hears of all that.
  void recall(std::string_view text, std::string_view watched, Looks& looks);

  [[nodiscard]] const Closure* closure(const std::string& question) const;
  [[nodiscard]] const LoaderPolicy* policy(const std::string& question) const;
  void add(const std::string& question, const Closure& closure);
  void add(const std::string& question, const LoaderPolicy& policy);

  /// Empty where not all of `looks`, which are those of the resolver and no others, can be vouched for.
  [[nodiscard]] std::string to_text(std::string_view watched, const Looks& looks) const;

 private:
  std::map<std::string, Closure> closures_;
  std::map<std::string, LoaderPolicy> policies_;
  std::string recalled_;  ///< as it came, for as long as nothing is added
};

}  // namespace jail::elf
