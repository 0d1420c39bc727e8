#include "supervisor/control/client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <optional>
#include <thread>

#include "supervisor/base/quote.h"
#include "supervisor/control/address.h"

namespace jail::control {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr auto replace_time = 10s;  ///< so long we ask again while jaild is being replaced
constexpr auto ask_again = 50ms;
constexpr auto quick_answer = 10s;  ///< the longest that jaild may take for a verb that waits for no service
constexpr std::size_t max_messages = 4096;

// What is lost with the stream when jaild dies in the middle, and whether asking again does harm.
struct Verb {
  const char* name;
  bool repeat;  ///< asking twice is as good as once
  bool waits;   ///< the answer takes as long as a service takes
};
constexpr std::array verbs = {
    Verb{"status", true, false}, Verb{"ping", true, false},    Verb{"enable", true, true},
    Verb{"disable", true, true}, Verb{"start", true, true},    Verb{"stop", true, true},
    Verb{"reload", true, true},  Verb{"restart", false, true}, Verb{"shutdown", false, true},
    Verb{"check", true, true},
};

Verb verb_of(const Request& request) {
  const auto* found =
      std::find_if(verbs.begin(), verbs.end(), [&](const Verb& verb) { return request.verb == verb.name; });
  return found == verbs.end() ? Verb{"", false, true} : *found;
}

tl::unexpected<Error> not_running(const Instance& instance) {
  const std::string home = instance.home.empty() ? "" : " --home " + instance.home;
  return with_hint(
      fail(Exit::unavailable, "jaild is not running ({}: nobody listens)", instance.control_socket()),
      "start it: jaild" + home);
}

Result<UniqueFd> open_connection(const Instance& instance) {
  const std::string path = instance.control_socket();
  const auto address = address_of(path);
  if (!address && address.error().exit == Exit::unavailable) return not_running(instance);
  if (!address) return tl::unexpected(address.error());
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(Exit::host, errno, "control socket: cannot make a socket");
  // connect(2) waits while the backlog is full, for this long.
  const timeval time{.tv_sec = 10, .tv_usec = 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
  while (::connect(socket.get(), address->get(), address->length) != 0) {
    if (errno == EINTR) continue;
    if (errno == ENOENT || errno == ECONNREFUSED || errno == ENOTDIR) return not_running(instance);
    if (errno == EACCES || errno == EPERM)
      return with_hint(fail(Exit::permission, "{}: only root may talk to jaild", path),
                       "ask root, or use sudo");
    if (errno == EAGAIN)
      return with_hint(fail(Exit::unavailable, "{}: jaild does not accept connections", path),
                       "it may be stopped or overloaded: look at its log");
    return fail_errno(Exit::unavailable, errno, "{}: cannot connect", path);
  }
  return socket;
}

tl::unexpected<Error> lost() {
  return fail(Exit::unavailable, "jaild went away before it answered");
}

bool is_lost(const Error& error) {
  return error.exit == Exit::unavailable;
}

/// Until `socket` has something to say.
Result<void> wait_for_answer(int socket, int interrupt) {
  pollfd watched[] = {{socket, POLLIN, 0}, {interrupt, POLLIN, 0}};
  while (::poll(watched, 2, -1) < 0)
    if (errno != EINTR) return fail_errno(Exit::io, errno, "cannot wait for jaild");
  if (watched[0].revents == 0) return fail(Exit::busy, "interrupted");
  return {};
}

// One message; an empty one is the end of the stream.
Result<std::string> receive(int socket, std::string& buffer, int interrupt) {
  bool again = true;
  while (true) {
    if (interrupt >= 0) JAIL_CHECK(wait_for_answer(socket, interrupt));
    const ssize_t got = ::recv(socket, buffer.data(), buffer.size(), MSG_TRUNC);
    if (got >= 0 && static_cast<std::size_t>(got) <= max_message)
      return buffer.substr(0, static_cast<std::size_t>(got));
    if (got >= 0) return fail(Exit::io, "jaild sent a message of {} bytes, more than {}", got, max_message);
    if (errno == EINTR) continue;
    if (errno == EAGAIN)
      return with_hint(fail(Exit::io, "jaild does not answer"), "it may be stopped: look at its log");
    // A server that refuses answers and closes at once, our request unread: the error comes before the
    // answer.
    if (errno == ECONNRESET && std::exchange(again, false)) continue;
    return lost();
  }
}

Result<Answer> ask_once(int socket, const Request& request, bool waits, int interrupt) {
  if (!waits) {
    const timeval time{.tv_sec = std::chrono::seconds(quick_answer).count(), .tv_usec = 0};
    ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
  }
  const std::string text = to_json(request);
  if (text.size() > max_message)
    return with_hint(fail(Exit::usage, "too many names for one request"), "name fewer at a time");
  // EPIPE is no end yet: a server that refuses has answered before it read.
  while (::send(socket, text.data(), text.size(), MSG_NOSIGNAL) < 0 && errno == EINTR) {
  }
  Answer answer;
  std::string buffer(max_message + 1, '\0');
  for (std::size_t count = 0; count < max_messages; ++count) {
    JAIL_TRY(message, receive(socket, buffer, waits ? interrupt : -1));
    if (message.empty()) return lost();
    JAIL_TRY(more, add_message(answer, message, count == 0));
    if (!more) return answer;
  }
  return fail(Exit::io, "jaild's answer has no end");
}

Result<Answer> ask_new(const Instance& instance, const Request& request, int interrupt) {
  JAIL_TRY(socket, open_connection(instance));
  return ask_once(socket.get(), request, verb_of(request).waits, interrupt);
}

// Asks until somebody answers, or the time of a replacement is over.
Result<Answer> ask_repeatedly(const Instance& instance, const Request& request, Clock::time_point until,
                              int interrupt) {
  while (true) {
    auto answer = ask_new(instance, request, interrupt);
    if (answer || !is_lost(answer.error()) || Clock::now() >= until) return answer;
    std::this_thread::sleep_for(ask_again);
  }
}

// jaild died while it restarted services. Which of them run newly? Those need to be waited for only; the
// others are restarted by a second request.
Result<Answer> finish_restart(const Instance& instance, const Request& request, Clock::time_point asked,
                              int interrupt) {
  const auto until = Clock::now() + replace_time;
  JAIL_TRY(status, ask_repeatedly(instance, {"status", request.names, true}, until, interrupt));
  const auto since = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - asked).count();
  Request again{"restart", {}, request.wait};
  Request wait_for{"start", {}, request.wait};
  for (const std::string& name : request.names) {
    const auto found = std::find_if(status.services.begin(), status.services.end(),
                                    [&](const ServiceStatus& service) { return service.name == name; });
    const bool fresh = found != status.services.end() && found->pid != 0 &&
                       found->uptime_ms <= static_cast<std::uint64_t>(since);
    (fresh ? wait_for : again).names.push_back(name);
  }
  Answer whole;
  for (const Request* part : {&wait_for, &again}) {
    if (part->names.empty()) continue;
    JAIL_TRY(answer, part->verb == "start" ? ask_repeatedly(instance, *part, until, interrupt)
                                           : ask_new(instance, *part, interrupt));
    whole.exit = std::max(whole.exit, answer.exit);
    if (whole.message.empty()) whole.message = answer.message;
    if (whole.hint.empty()) whole.hint = answer.hint;
    std::move(answer.outcomes.begin(), answer.outcomes.end(), std::back_inserter(whole.outcomes));
  }
  return whole;
}

}  // namespace

Result<Answer> ask(const Instance& instance, const Request& request, int interrupt) {
  const Verb verb = verb_of(request);
  const auto asked = Clock::now();
  JAIL_TRY(socket, open_connection(instance));
  auto answer = ask_once(socket.get(), request, verb.waits, interrupt);
  if (answer || !is_lost(answer.error())) return answer;
  socket.reset();
  if (request.verb == "shutdown") return Answer{};  // the end of the stream is what was asked for
  if (request.verb == "restart") return finish_restart(instance, request, asked, interrupt);
  if (verb.repeat) answer = ask_repeatedly(instance, request, Clock::now() + replace_time, interrupt);
  return answer;
}

}  // namespace jail::control
