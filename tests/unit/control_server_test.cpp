#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "catch.h"
#include "supervisor/control/address.h"
#include "supervisor/control/client.h"
#include "supervisor/control/server.h"

using namespace jail;
using namespace jail::control;
using namespace std::chrono_literals;

namespace {

// A home below /tmp that goes with the test.
struct Home {
  Home() {
    std::string name = "/tmp/jail-control-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
    instance = *find_instance(name, std::nullopt);
  }
  ~Home() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
  Instance instance;
};

Server listen(const Instance& instance, UniqueFd inherited = {}) {
  auto server = Server::listen(instance, std::move(inherited));
  if (!server) FAIL(server.error().message);
  return std::move(*server);
}

UniqueFd connect_to(const Instance& instance) {
  const auto address = address_of(instance.control_socket());
  REQUIRE(address);
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (::connect(socket.get(), address->get(), address->length) != 0) socket.reset();
  return socket;
}

bool say(const UniqueFd& socket, std::string_view text) {
  return ::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
}

constexpr const char* ping = R"({"v":1,"verb":"ping"})";

// Serves until nothing happens for `quiet`; the requests that came.
std::vector<Incoming> serve(Server& server, std::chrono::milliseconds quiet = 20ms) {
  std::vector<Incoming> all;
  pollfd watched{server.fd(), POLLIN, 0};
  while (::poll(&watched, 1, static_cast<int>(quiet.count())) == 1)
    for (Incoming& incoming : server.on_readable()) all.push_back(std::move(incoming));
  return all;
}

// What came: a message, "" for the end of the stream, nothing.
std::optional<std::string> hear(const UniqueFd& socket) {
  std::string buffer(max_message + 1, '\0');
  ssize_t got = ::recv(socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got < 0 && errno == ECONNRESET) got = ::recv(socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got < 0) return std::nullopt;
  buffer.resize(static_cast<std::size_t>(got));
  return buffer;
}

// An answer of several megabytes: no socket takes it at once.
Answer huge_answer() {
  Answer answer;
  ServiceStatus service;
  service.last_lines.assign(10, std::string(240, 'x'));
  answer.services.assign(2000, service);
  return answer;
}

}  // namespace

TEST_CASE("a request comes with its sender, and is answered") {
  const Home home;
  Server server = listen(home.instance);
  const UniqueFd client = connect_to(home.instance);
  REQUIRE(client);
  REQUIRE(say(client, R"({"v":1,"verb":"status","names":["named"]})"));
  const auto incoming = serve(server);
  REQUIRE(incoming.size() == 1);
  CHECK(incoming[0].request.verb == "status");
  CHECK(incoming[0].pid == ::getpid());
  CHECK(incoming[0].uid == ::geteuid());
  CHECK(server.waits(incoming[0].client));
  Answer answer;
  answer.jaild_pid = 42;
  server.answer(incoming[0].client, answer);
  const auto heard = hear(client);
  REQUIRE(heard);
  const auto back = answer_from_json(*heard);
  REQUIRE(back);
  CHECK(back->jaild_pid == 42);
  // A second one on the same connection.
  REQUIRE(say(client, ping));
  CHECK(serve(server).size() == 1);
}

TEST_CASE("the socket is for its owner alone, whatever the umask") {
  const Home home;
  const mode_t before = ::umask(0);
  const Server server = listen(home.instance);
  ::umask(before);
  struct stat status {};
  REQUIRE(::stat(home.instance.control_socket().c_str(), &status) == 0);
  CHECK((status.st_mode & 07777U) == 0600);
}

TEST_CASE("rubbish is answered with the reason and dropped") {
  const Home home;
  Server server = listen(home.instance);
  const std::string rubbish = GENERATE(std::string("hello"), std::string(70000, 'x'), std::string(1, '\0'),
                                       std::string(R"({"v":1,"verb":["a"]})"));
  const UniqueFd client = connect_to(home.instance);
  REQUIRE(say(client, rubbish));
  CHECK(serve(server).empty());
  const auto heard = hear(client);
  REQUIRE(heard);
  const auto answer = answer_from_json(*heard);
  REQUIRE(answer);
  CHECK(answer->exit == static_cast<int>(Exit::usage));
  CHECK(hear(client) == "");
}

TEST_CASE("a second request before the answer ends the connection") {
  const Home home;
  Server server = listen(home.instance);
  const UniqueFd client = connect_to(home.instance);
  REQUIRE(say(client, ping));
  const auto incoming = serve(server);
  REQUIRE(incoming.size() == 1);
  REQUIRE(say(client, ping));
  CHECK(serve(server).empty());
  CHECK_FALSE(server.waits(incoming[0].client));
  server.answer(incoming[0].client, Answer{});  // too late, and harmless
  CHECK(hear(client) == "");
}

TEST_CASE("a client that goes away is forgotten") {
  const Home home;
  Server server = listen(home.instance);
  UniqueFd client = connect_to(home.instance);
  REQUIRE(say(client, ping));
  const auto incoming = serve(server);
  client.reset();
  CHECK(serve(server).empty());
  CHECK_FALSE(server.waits(incoming.at(0).client));
}

TEST_CASE("a slow reader gets a large answer whole, and holds up nobody") {
  const Home home;
  Server server = listen(home.instance);
  const UniqueFd slow = connect_to(home.instance);
  REQUIRE(say(slow, ping));
  const auto incoming = serve(server);
  server.answer(incoming.at(0).client, huge_answer());
  CHECK_FALSE(server.idle());
  const UniqueFd quick = connect_to(home.instance);
  REQUIRE(say(quick, ping));
  const auto other = serve(server);
  REQUIRE(other.size() == 1);
  server.answer(other[0].client, Answer{});
  CHECK(hear(quick));
  Answer whole;
  bool more = true;
  for (bool first = true; more; first = false) {
    auto message = hear(slow);
    if (!message) {
      serve(server, 1ms);
      message = hear(slow);
    }
    REQUIRE(message);
    const auto added = add_message(whole, *message, first);
    REQUIRE(added);
    more = *added;
  }
  CHECK(whole.services.size() == 2000);
  CHECK(server.idle());
}

TEST_CASE("a hundred clients: the idle make room, and those that wait for an answer keep theirs") {
  const Home home;
  Server server = listen(home.instance);
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 32; ++i) {
    clients.push_back(connect_to(home.instance));
    REQUIRE(say(clients.back(), ping));
    REQUIRE(serve(server, 0ms).size() == 1);
  }
  for (int i = 0; i < 68; ++i) {
    clients.push_back(connect_to(home.instance));
    REQUIRE(clients.back());
    serve(server, 0ms);
  }
  for (int i = 0; i < 32; ++i) CHECK_FALSE(hear(clients[static_cast<std::size_t>(i)]));  // not dropped
  std::size_t dropped = 0;
  for (const UniqueFd& client : clients) dropped += hear(client) == "" ? 1 : 0;
  CHECK(dropped == 100 - Server::max_clients);
}

TEST_CASE("when all clients wait for an answer a new one is told to come again") {
  const Home home;
  Server server = listen(home.instance);
  std::vector<UniqueFd> clients;
  for (std::size_t i = 0; i < Server::max_clients; ++i) {
    clients.push_back(connect_to(home.instance));
    REQUIRE(say(clients.back(), ping));
    REQUIRE(serve(server, 0ms).size() == 1);
  }
  const UniqueFd late = connect_to(home.instance);
  serve(server);
  const auto answer = answer_from_json(hear(late).value_or(""));
  REQUIRE(answer);
  CHECK(answer->exit == static_cast<int>(Exit::busy));
}

TEST_CASE("no descriptor left: the client is turned away, and nothing spins") {
  const Home home;
  Server server = listen(home.instance);
  const UniqueFd client = connect_to(home.instance);
  std::vector<UniqueFd> hog;
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const rlimit tight{64, limit.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &tight) == 0);
  for (int fd = ::dup(0); fd >= 0; fd = ::dup(0)) hog.emplace_back(fd);
  int turns = 0;
  pollfd watched{server.fd(), POLLIN, 0};
  while (turns < 100 && ::poll(&watched, 1, 50) == 1) {
    ++turns;
    (void)server.on_readable();
  }
  hog.clear();
  ::setrlimit(RLIMIT_NOFILE, &limit);
  CHECK(turns < 5);
  CHECK(hear(client) == "");
  const UniqueFd next = connect_to(home.instance);
  REQUIRE(say(next, ping));
  CHECK(serve(server).size() == 1);
}

TEST_CASE("one jaild an instance; a stale socket is replaced, a foreign file is not") {
  const Home home;
  {
    const Server first = listen(home.instance);
    const auto second = Server::listen(home.instance);
    REQUIRE_FALSE(second);
    CHECK(second.error().exit == Exit::busy);
    CHECK_THAT(second.error().message, Catch::Matchers::Contains(std::to_string(::getpid())));
  }
  { const Server again = listen(home.instance); }  // the first one's socket is stale now
  std::filesystem::remove(home.instance.control_socket());
  REQUIRE(::close(::open(home.instance.control_socket().c_str(), O_CREAT | O_WRONLY, 0600)) == 0);
  CHECK_FALSE(Server::listen(home.instance));
}

TEST_CASE("a listening socket from the keeper serves on, with the clients in its queue") {
  const Home home;
  UniqueFd kept;
  {
    const Server first = listen(home.instance);
    kept.reset(::dup(first.listening_fd()));
  }
  const UniqueFd client = connect_to(home.instance);  // while no jaild lives
  REQUIRE(client);
  REQUIRE(say(client, ping));
  Server second = listen(home.instance, std::move(kept));
  CHECK(serve(second).size() == 1);
}

TEST_CASE("what the keeper hands over is checked") {
  const Home home;
  SECTION("no listening socket") {
    Server server = listen(home.instance, UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC)));
    CHECK(connect_to(home.instance));
  }
  SECTION("a socket whose name is gone") {
    UniqueFd kept;
    {
      const Server first = listen(home.instance);
      kept.reset(::dup(first.listening_fd()));
    }
    std::filesystem::remove(home.instance.control_socket());
    Server server = listen(home.instance, std::move(kept));
    CHECK(connect_to(home.instance));
  }
}

TEST_CASE("a home longer than a socket's address works for both sides") {
  Home home;
  const std::string deep = home.path.string() + "/" + std::string(120, 'd');
  home.instance = *find_instance(deep, std::nullopt);
  Server server = listen(home.instance);
  const UniqueFd client = connect_to(home.instance);
  REQUIRE(client);
  REQUIRE(say(client, ping));
  CHECK(serve(server).size() == 1);
}

TEST_CASE("after stop_listening nobody waits for us, and who is connected still gets an answer") {
  const Home home;
  Server server = listen(home.instance);
  const UniqueFd kept(::dup(server.listening_fd()));  // the keeper's
  const UniqueFd client = connect_to(home.instance);
  REQUIRE(say(client, ping));
  const auto incoming = serve(server);
  server.stop_listening();
  CHECK_FALSE(connect_to(home.instance));
  server.answer(incoming.at(0).client, Answer{});
  CHECK(hear(client));
}

TEST_CASE("ask: no jaild") {
  const Home home;
  const auto answer = ask(home.instance, {"status", {}, true});
  REQUIRE_FALSE(answer);
  CHECK(answer.error().exit == Exit::unavailable);
  CHECK_THAT(answer.error().hint, Catch::Matchers::Contains("jaild --home " + home.path.string()));
}

namespace {

// A jaild that dies (drops its clients, keeps the socket) at the first `deaths` requests, with a service that
// has run for `uptime_ms`.
class Dying {
 public:
  Dying(const Instance& instance, int deaths, std::uint64_t uptime_ms)
      : instance_(instance), server_(listen(instance)), deaths_(deaths), uptime_ms_(uptime_ms) {
    thread_ = std::thread([this] { run(); });
  }
  ~Dying() { (void)end(); }

  /// The verbs that came.
  std::vector<std::string> end() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    return verbs_;
  }

 private:
  void run() {
    while (!stop_) {
      for (const Incoming& incoming : serve(server_, 5ms)) {
        verbs_.push_back(incoming.request.verb);
        if (deaths_-- > 0) {
          UniqueFd kept(::dup(server_.listening_fd()));
          server_ = listen(instance_, std::move(kept));
          break;
        }
        Answer answer;
        ServiceStatus service;
        service.name = "named";
        service.pid = 7;
        service.uptime_ms = uptime_ms_;
        answer.services = {service};
        answer.outcomes = {{"named", 0, "", ""}};
        server_.answer(incoming.client, answer);
      }
    }
  }
  const Instance& instance_;
  Server server_;
  int deaths_;
  std::uint64_t uptime_ms_;
  std::vector<std::string> verbs_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

using Verbs = std::vector<std::string>;

}  // namespace

TEST_CASE("ask: a jaild that is replaced in the middle is asked again") {
  const Home home;
  Dying jaild(home.instance, 3, 0);
  const auto answer = ask(home.instance, {"start", {"named"}, true});
  CHECK(answer);
  CHECK(jaild.end() == Verbs{"start", "start", "start", "start"});
}

TEST_CASE("ask: a restart is not repeated blindly") {
  const Home home;
  SECTION("the service still runs as before: the restart is asked for again") {
    Dying jaild(home.instance, 1, 3600000);
    const auto answer = ask(home.instance, {"restart", {"named"}, true});
    REQUIRE(answer);
    CHECK(answer->outcomes.size() == 1);
    CHECK(jaild.end() == Verbs{"restart", "status", "restart"});
  }
  SECTION("it runs anew: it is only waited for") {
    Dying jaild(home.instance, 1, 0);
    const auto answer = ask(home.instance, {"restart", {"named"}, true});
    REQUIRE(answer);
    CHECK(jaild.end() == Verbs{"restart", "status", "start"});
  }
}

TEST_CASE("ask: an orderly end is the answer to a shutdown") {
  const Home home;
  Dying jaild(home.instance, 1, 0);
  CHECK(ask(home.instance, {"shutdown", {}, true}));
  CHECK(jaild.end() == Verbs{"shutdown"});
}
