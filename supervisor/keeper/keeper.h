// The keeper: the tiny process that jaild lives under. It parses nothing: it starts jaild and starts it again
// when it dies, is the subreaper (or PID 1), holds the descriptors that must outlive jaild, and tells each
// new jaild what it holds and which orphans ended. Both sides of the socket between them are here.
//
//   keeper --socketpair(SEQPACKET), fd 3--> jaild        fixed-size records, descriptors by SCM_RIGHTS
//
// What the user starts is the keeper: `jaild` without the inherited socket executes jail-keeper, which starts
// `jaild --keeper-fd=3 ...` with the same arguments. SIGTERM and SIGINT to the keeper go on to jaild; when
// jaild exits by itself (no signal) the keeper ends with its status. A jaild that dies otherwise is back at
// once; one that keeps dying within a second of its start waits 100 ms, 200 ms ... up to 5 s.
//
// SIGKILL of the keeper: jaild (see replace_keeper()) forks; the child goes on as jaild, the parent executes
// jail-keeper and so stays the parent of every running service that this jaild started. (Services of an
// earlier jaild were children of the killed keeper; their ends are seen by pidfd only.)
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"

namespace jail::keeper {

inline constexpr std::size_t name_size = 120;  ///< of a held descriptor's name, the final NUL included

/// A descriptor that the keeper holds.
struct Held {
  std::string name;  ///< "named/log", "state" ...: made by jaild, opaque to the keeper
  UniqueFd fd;
};

/// A child of the keeper ended and was reaped.
struct Reaped {
  pid_t pid = -1;
  int status = 0;  ///< as waitpid(2) gives it
};

/// jaild's side.
class Client {
 public:
  /// Takes the inherited socket, and receives all that the keeper holds and the ends that nobody was told of
  /// yet. Blocks until the keeper has sent them (it does so at once).
  [[nodiscard]] static Result<Client> connect(UniqueFd socket);

  /// What connect() received. Moves it out.
  [[nodiscard]] std::vector<Held> take_held();

  /// Has the keeper hold a duplicate of `fd` under `name`; a second store of a name replaces the first.
  /// Returns when the record is queued (the socket keeps order: a later crash of jaild cannot lose it). A
  /// keeper that does not take it within 5 s is Exit::busy; one that is gone is Exit::unavailable.
  [[nodiscard]] Result<void> store(const std::string& name, int fd);
  [[nodiscard]] Result<void> drop(const std::string& name);

  [[nodiscard]] int fd() const { return socket_.get(); }

  /// Call when fd() is readable, and once after connect(): it may have brought ends. Exit::unavailable when
  /// the keeper is gone: call replace_keeper().
  [[nodiscard]] Result<std::vector<Reaped>> on_readable();

  /// Makes a new keeper of the calling process and goes on in a fork of it (see the head of this file). Every
  /// descriptor of `held` is given to the new keeper. Returns in the child, with the new client in place.
  /// `program` is the path of jail-keeper, `arguments` the command line with which it starts the next jaild:
  /// the program's path first, without --keeper-fd. On an error the caller is the process that it was, the
  /// child is gone, and nothing has changed: try again later.
  ///
  /// Afterwards, in the child, the caller must
  ///   - watch fd() in place of the old one (its number may differ);
  ///   - remove and add every signalfd of its epoll set: an entry stays bound to the process that added it;
  ///   - forget about waitid() for services that run: they are the keeper's children now, and it tells their
  ///   ends;
  ///   - renew what is bound to a pid: getpid() kept somewhere, MAINPID told to a service manager, F_SETLK
  ///   locks,
  ///     prctl(PR_SET_PDEATHSIG).
  /// epoll, timerfd, pidfd, flock and open file descriptions go on as they are, for the parent's duplicates
  /// go with its execve (all descriptors must be close-on-exec). The process must have one thread.
  [[nodiscard]] Result<void> replace_keeper(const std::string& program,
                                            const std::vector<std::string>& arguments,
                                            const std::vector<std::pair<std::string, int>>& held);

 private:
  UniqueFd socket_;
  std::vector<Held> held_;
  std::vector<Reaped> reaped_;
};

}  // namespace jail::keeper
