// jaild's side of the control socket: accepts clients, reads one request at a time from each, and writes
// answers, all without ever waiting. It keeps an epoll set of its own, so that a loop watches one descriptor,
// fd(), for reading and calls on_readable(); timeouts of clients included.
//
// Who may ask: uid 0 and the uid that jaild runs as, as SO_PEERCRED tells. Anybody else is refused by the
// socket's mode (0600) and, should a mode be changed by hand, by an answer with Exit::permission: "ask root".
//
// What a client can do wrong, and what it gets:
//   a message above max_message, no JSON, a wrong type    an answer with Exit::usage, then end of stream
//   a second request before the answer to the first      end of stream
//   it does not read its answer, or asks nothing          end of stream after client_timeout
//   more than max_clients                                 the one that has been idle longest is dropped; when
//   none
//                                                         is idle the new one gets Exit::busy
//   no descriptor left for accept(2)                      end of stream, by way of a spare descriptor; never
//   a spin
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/error.h"
#include "supervisor/base/fd.h"
#include "supervisor/control/protocol.h"
#include "supervisor/spec/instance.h"

namespace jail::control {

/// Names one connection for as long as the server lives; never used twice.
using ClientId = std::uint64_t;

/// A request that waits for Server::answer().
struct Incoming {
  ClientId client = 0;
  Request request;  ///< its shape is checked; verb and names are not
  pid_t pid = 0;    ///< of the peer when it connected; 0 where it is outside of our pid namespace
  uid_t uid = 0;
};

class Server {
 public:
  static constexpr std::size_t max_clients = 64;
  static constexpr std::chrono::milliseconds client_timeout{10000};

  /// Listens on instance.control_socket(); the directory is made where it is missing. `inherited` is the
  /// listening socket of an earlier jaild, from the keeper, or empty: it is used as it is as long as its name
  /// still exists. A socket that nobody listens on is replaced; Exit::busy when somebody does (another jaild
  /// of this instance).
  [[nodiscard]] static Result<Server> listen(const Instance& instance, UniqueFd inherited = {});

  Server(Server&&) noexcept = default;
  Server& operator=(Server&&) noexcept = default;
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server() = default;

  /// Watch it for reading (level-triggered). It is an epoll descriptor and survives fork: after
  /// keeper::Client::replace_keeper() it works on in the child as it is.
  [[nodiscard]] int fd() const { return epoll_.get(); }

  /// The listening socket, for keeper::Client::store().
  [[nodiscard]] int listening_fd() const { return listener_.get(); }

  /// Call when fd() is readable: accepts, reads, goes on writing, drops who is late. Returns the whole
  /// requests that came.
  [[nodiscard]] std::vector<Incoming> on_readable();

  /// Answers the request of `client`. One that is gone meanwhile is no error. What the client's socket does
  /// not take at once is written later, by on_readable().
  void answer(ClientId client, const Answer& answer);

  /// Whether the client of an unanswered request still waits for it.
  [[nodiscard]] bool waits(ClientId client) const { return clients_.contains(client); }

  /// No answer is unwritten: an orderly end may exit now.
  [[nodiscard]] bool idle() const;

  /// For an orderly end: removes the name of the socket, so that clients learn at once that nobody is there.
  /// Clients that are connected can still be answered.
  void stop_listening();

 private:
  using Clock = std::chrono::steady_clock;
  struct Connection {
    UniqueFd fd;
    pid_t pid = 0;
    uid_t uid = 0;
    bool asked = false;            ///< a request is with jaild
    bool closing = false;          ///< dropped when `out` is written
    bool writing = false;          ///< the epoll set waits for room in its socket
    std::vector<std::string> out;  ///< messages to write
    std::size_t written = 0;       ///< of `out`
    Clock::time_point deadline;    ///< of the next step that is the client's; none while `asked`
  };
  using Clients = std::map<ClientId, Connection>;

  Server() = default;
  void accept_all();
  bool accept_one();
  bool refuse_without_descriptor();
  bool make_room();
  void greet(UniqueFd socket);
  // These return false when the client is to be dropped.
  bool read_request(ClientId id, Connection& client, std::vector<Incoming>& incoming);
  bool send(ClientId id, Connection& client, const Answer& answer);
  bool write_some(ClientId id, Connection& client);
  void drop_late();
  void arm_timer();

  UniqueFd dir_;  ///< that holds the socket
  UniqueFd listener_;
  UniqueFd spare_;  ///< given up to accept and refuse a client when descriptors run out
  UniqueFd timer_;
  UniqueFd epoll_;       ///< of all of these
  bool paused_ = false;  ///< not accepting until resume_at_: there is no descriptor, and no spare
  Clock::time_point resume_at_;
  std::optional<Clock::time_point> armed_;  ///< what the timer is set to
  ClientId next_id_ = 16;  ///< smaller ones name the server's own descriptors in the epoll set
  Clients clients_;
  std::string buffer_;
};

}  // namespace jail::control
