// What a build found out that the next one may use again: answers by name, in store/memo-NAME, which the
// instances of a template have in common. A witness says that nothing changed; a memo is for the builds where
// something did, and most of what they would work out came out the same.
//
// It only saves time: where it is missing, torn or of another jail program, everything is worked out. Whoever
// puts an answer in says by its name, or within it, what it depends on.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "supervisor/spec/instance.h"

namespace jail {

/// Its name in the store's directory: "memo-named", "memo-web@" for web@1 and web@2.
[[nodiscard]] std::string memo_file(const std::string& jail);

class Memo {
 public:
  /// Empty where there is none to be trusted. Takes no lock.
  [[nodiscard]] static Memo load(const Instance& instance, const std::string& jail);

  /// The answer, or null; it stays in the memo.
  [[nodiscard]] const std::string* find(const std::string& name);
  void put(const std::string& name, std::string answer);

  /// Writes what was found or put since load(), and nothing else, into the store's directory; nothing where
  /// that is what is there. Failing to write is no error.
  void save(const Instance& instance, const std::string& jail, int store) const;

 private:
  struct Answer {
    std::string text;
    bool used = false;
  };
  std::map<std::string, Answer, std::less<>> answers_;
  bool changed_ = false;
};

}  // namespace jail
