// A command that runs for us: waited for, with the signals that we get handed on, and, where it is confined,
// a terminal of its own between it and ours.
#pragma once

#include <sys/types.h>
#include <termios.h>

#include <optional>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"

namespace jail::cli {

/// A pseudoterminal that stands for ours. Who has it can read what is typed for as long as the command runs,
/// and no longer: whatever the command leaves behind, our terminal never was within its reach.
class Terminal {
 public:
  /// Nothing where none of the standard descriptors is a terminal.
  [[nodiscard]] static Result<std::optional<Terminal>> make();
  Terminal(Terminal&&) noexcept = default;
  Terminal& operator=(Terminal&&) noexcept = delete;
  ~Terminal();

  /// What the command gets for descriptor `fd` (0, 1, 2): its own end where ours is a terminal, else ours.
  [[nodiscard]] int standard(int fd) const;
  /// The command has been started: its end is its alone from now on.
  void started();
  [[nodiscard]] int fd() const { return master_.get(); }
  [[nodiscard]] bool reads() const { return reads_; }

  void take_window_size() const;
  /// From the command to us. False: nothing comes any more.
  bool show();
  /// From us to the command. False: our terminal is gone.
  bool type();
  /// Of what was typed, some could not be handed on yet.
  [[nodiscard]] bool full() const { return !typed_.empty(); }

 private:
  Terminal() = default;
  bool hand_on();
  UniqueFd master_, slave_;
  std::optional<termios> before_;  ///< of ours, to be restored
  bool reads_ = false;             ///< what is typed is the command's
  int screen_ = -1;                ///< where its output goes
  std::string typed_;
};

enum class Keyboard : bool {
  shared,  ///< the command is in our session: the terminal's own signals reach it
  apart,   ///< it is in one of its own: all signals come from us
};

/// Signals come by a descriptor from now on (made before the command starts, so that none is lost).
[[nodiscard]] Result<UniqueFd> catch_signals();
/// In the command, if it goes on with our mask.
void release_signals();

/// Until `process` (a pidfd of a child) has ended. As shells say it: its status, or 128 and the signal's
/// number.
[[nodiscard]] Result<int> wait_for_end(int process, int signals, Keyboard keyboard, Terminal* terminal);

}  // namespace jail::cli
