#include "catch.h"
#include "supervisor/control/protocol.h"

using namespace jail;
using namespace jail::control;

namespace {

ServiceStatus large_service(char filler) {
  ServiceStatus service;
  service.name = "named";
  service.state = "failed";
  service.reason = std::string(100000, filler);
  service.last_lines.assign(500, std::string(5000, filler));
  service.not_enforced.assign(500, std::string(5000, filler));
  return service;
}

Result<Answer> put_together(const std::vector<std::string>& messages) {
  Answer answer;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    JAIL_TRY(more, add_message(answer, messages[i], i == 0));
    if (more == (i + 1 == messages.size())) return fail(Exit::internal, "message {} is not marked right", i);
  }
  return answer;
}

}  // namespace

TEST_CASE("of the last lines the long ones are cut, and no more than there is need to") {
  ServiceStatus service = large_service('x');
  service.last_lines = {"short", std::string(2000, 'y'), "end"};
  Answer answer;
  answer.services = {service};
  const auto whole = put_together(to_messages(answer));
  REQUIRE(whole);
  CHECK(whole->services.front().last_lines == service.last_lines);
  service.last_lines = {"short", std::string(5000, 'y'), std::string(5000, 'z'), "end"};
  answer.services = {service};
  const auto cut = put_together(to_messages(answer));
  REQUIRE(cut);
  CHECK(cut->services.front().last_lines == std::vector<std::string>{"short", std::string(1276, 'y') + "...",
                                                                     std::string(1276, 'z') + "...", "end"});
}

TEST_CASE("a request survives the way through JSON") {
  const Request request{"restart", {"named", "web@eu"}, false};
  const auto back = request_from_json(to_json(request));
  REQUIRE(back);
  CHECK(back->verb == "restart");
  CHECK(back->names == request.names);
  CHECK_FALSE(back->wait);
}

TEST_CASE("a request of a newer jail is understood as far as it can be") {
  const auto request = request_from_json(R"({"v":1,"verb":"stop","names":["a"],"shiny":{"new":[1,2]}})");
  REQUIRE(request);
  CHECK(request->verb == "stop");
  CHECK(request->wait);
}

TEST_CASE("what is no request is refused with the reason") {
  const char* text = nullptr;
  const char* reason = nullptr;
  std::tie(text, reason) = GENERATE(table<const char*, const char*>({
      {"", "not JSON"},
      {"{", "not JSON"},
      {"\xff\xfe", "not JSON"},
      {"[]", "not a JSON object"},
      {"null", "not a JSON object"},
      {"{}", "no version"},
      {R"({"v":"1","verb":"stop"})", "no version"},
      {R"({"v":2,"verb":"stop"})", "version 2"},
      {R"({"v":1})", "no verb"},
      {R"({"v":1,"verb":7})", "\"verb\""},
      {R"({"v":1,"verb":"stop","names":"a"})", "\"names\""},
      {R"({"v":1,"verb":"stop","names":[1]})", "\"names\""},
      {R"({"v":1,"verb":"stop","wait":1})", "\"wait\""},
      {R"({"v":1,"verb":"stop","x":[[[[[[[[[[[[]]]]]]]]]]]]})", "too deep"},
      {R"({"v":1,"verb":"stop"} {})", "not JSON"},
  }));
  CAPTURE(text);
  const auto request = request_from_json(text);
  REQUIRE_FALSE(request);
  CHECK(request.error().exit == Exit::usage);
  CHECK_THAT(request.error().message, Catch::Matchers::Contains(reason));
}

TEST_CASE("numbers beyond their type are refused, not wrapped") {
  CHECK_FALSE(answer_from_json(R"({"v":1,"exit":99999999999})"));
  CHECK_FALSE(answer_from_json(R"({"v":1,"exit":18446744073709551615})"));
  CHECK_FALSE(answer_from_json(R"({"v":1,"services":[{"uptime_ms":-1}]})"));
  CHECK_FALSE(answer_from_json(R"({"v":1,"services":[{"uptime_ms":1.5}]})"));
  CHECK_FALSE(answer_from_json(R"({"v":1,"services":{}})"));
  CHECK_FALSE(answer_from_json(R"({"v":1,"outcomes":[1]})"));
  CHECK(answer_from_json(R"({"v":1,"services":[{"uptime_ms":18446744073709551615}]})"));
}

TEST_CASE("a deep nest costs nothing") {
  std::string text = R"({"v":1,"verb":"stop","x":)" + std::string(60000, '[');
  CHECK_FALSE(request_from_json(text));
}

TEST_CASE("an answer of any size goes over in messages that fit") {
  const char filler = GENERATE('a', '\x01', '\xff', '"');
  Answer answer;
  answer.exit = 1;
  answer.jaild_pid = 12;
  answer.message = std::string(100000, filler);
  answer.services.assign(100, large_service(filler));
  for (std::size_t i = 0; i < answer.services.size(); ++i) answer.services[i].name = "s" + std::to_string(i);
  answer.outcomes.assign(100, {"named", 71, std::string(100000, filler), std::string(100000, filler)});
  const auto messages = to_messages(answer);
  CHECK(messages.size() > 1);
  for (const std::string& message : messages) CHECK(message.size() <= max_message);
  const auto back = put_together(messages);
  REQUIRE(back);
  CHECK(back->exit == 1);
  CHECK(back->jaild_pid == 12);
  CHECK(back->outcomes.size() == 100);
  REQUIRE(back->services.size() == 100);
  for (std::size_t i = 0; i < back->services.size(); ++i)
    CHECK(back->services[i].name == "s" + std::to_string(i));
}

TEST_CASE("a small answer is one message, and comes back as it was") {
  Answer answer;
  ServiceStatus service;
  service.name = "named";
  service.state = "ready";
  service.enabled = true;
  service.check = "failed";
  service.check_failure = "no answer";
  service.pid = 4711;
  service.generation = 2;
  service.current_generation = 3;
  service.uptime_ms = 192000;
  service.restarts = 1;
  service.reason = "killed by SIGKILL";
  service.last_lines = {"one", "caf\xc3\xa9"};
  service.not_enforced = {"landlock-net"};
  answer.services = {service};
  const auto messages = to_messages(answer);
  REQUIRE(messages.size() == 1);
  const auto back = answer_from_json(messages.front());
  REQUIRE(back);
  CHECK(to_json(*back) == to_json(answer));
  CHECK(back->services.front().last_lines == service.last_lines);
}

TEST_CASE("half an answer is not taken for a whole one") {
  CHECK_FALSE(answer_from_json(R"({"v":1,"more":true})"));
  CHECK_FALSE(answer_from_json(R"({"v":1,"more":"yes"})"));
}
