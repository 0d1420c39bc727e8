#include "supervisor/control/protocol.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "supervisor/base/quote.h"

namespace jail::control {
namespace {

using nlohmann::json;

constexpr int max_depth = 8;
constexpr std::size_t message_goal =
    32768;  ///< an answer's message grows until here; one item more always fits

// The fields of each shape, once for both directions.

template <class Visit, class Shape>
requires std::is_same_v<std::remove_const_t<Shape>, Request>
void fields(Visit& visit, Shape& shape) {
  visit("verb", shape.verb);
  visit("names", shape.names);
  visit("wait", shape.wait);
}

template <class Visit, class Shape>
requires std::is_same_v<std::remove_const_t<Shape>, ServiceStatus>
void fields(Visit& visit, Shape& shape) {
  visit("name", shape.name);
  visit("state", shape.state);
  visit("enabled", shape.enabled);
  visit("check", shape.check);
  visit("pid", shape.pid);
  visit("generation", shape.generation);
  visit("current_generation", shape.current_generation);
  visit("uptime_ms", shape.uptime_ms);
  visit("restarts", shape.restarts);
  visit("next_start_ms", shape.next_start_ms);
  visit("reason", shape.reason);
  visit("check_failure", shape.check_failure);
  visit("last_lines", shape.last_lines);
  visit("not_enforced", shape.not_enforced);
  visit("provides", shape.provides);
  visit("manifest_edited", shape.manifest_edited);
  visit("stale", shape.stale);
}

template <class Visit, class Shape>
requires std::is_same_v<std::remove_const_t<Shape>, Outcome>
void fields(Visit& visit, Shape& shape) {
  visit("name", shape.name);
  visit("exit", shape.exit);
  visit("message", shape.message);
  visit("hint", shape.hint);
  visit("lines", shape.lines);
}

// All of an answer but its lists.
template <class Visit, class Shape>
requires std::is_same_v<std::remove_const_t<Shape>, Answer>
void fields(Visit& visit, Shape& shape) {
  visit("exit", shape.exit);
  visit("message", shape.message);
  visit("hint", shape.hint);
  visit("jaild_pid", shape.jaild_pid);
  visit("keeper_pid", shape.keeper_pid);
  visit("relay_pid", shape.relay_pid);
}

struct Writer {
  json object = json::object();
  template <class Value>
  void operator()(const char* key, const Value& value) {
    object[key] = value;
  }
};

template <class Shape>
json write(const Shape& shape) {
  Writer writer;
  fields(writer, shape);
  return std::move(writer.object);
}

// Hostile bytes in log lines must not make an answer impossible: what is no UTF-8 is replaced.
std::string dump(const json& object) {
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

struct Reader {
  const json& object;
  std::string problem = {};

  template <class Value>
  void operator()(const char* key, Value& value) {
    const auto found = object.find(key);
    if (found == object.end()) return;
    if (!take(*found, value) && problem.empty())
      problem = fmt::format("\"{}\" has a wrong type or range", key);
  }

  static bool take(const json& from, std::string& to) {
    if (!from.is_string()) return false;
    to = from.get_ref<const std::string&>();
    return true;
  }
  static bool take(const json& from, bool& to) {
    if (!from.is_boolean()) return false;
    to = from.get<bool>();
    return true;
  }
  static bool take(const json& from, std::uint64_t& to) {
    if (!from.is_number_unsigned()) return false;
    to = from.get<std::uint64_t>();
    return true;
  }
  static bool take(const json& from, int& to) {
    if (!from.is_number_integer()) return false;
    if (from.is_number_unsigned() && from.get<std::uint64_t>() > std::numeric_limits<int>::max())
      return false;
    const auto number = from.get<std::int64_t>();
    if (number < std::numeric_limits<int>::min() || number > std::numeric_limits<int>::max()) return false;
    to = static_cast<int>(number);
    return true;
  }
  static bool take(const json& from, std::vector<std::string>& to) {
    if (!from.is_array()) return false;
    to.clear();
    for (const json& item : from) {
      if (!item.is_string()) return false;
      to.push_back(item.get_ref<const std::string&>());
    }
    return true;
  }
};

template <class Shape>
Result<void> read(const json& object, Shape& shape, std::string_view what) {
  if (!object.is_object()) return fail(Exit::usage, "control socket: {} is not a JSON object", what);
  Reader reader{object};
  fields(reader, shape);
  if (!reader.problem.empty()) return fail(Exit::usage, "control socket: {}: {}", what, reader.problem);
  return {};
}

template <class Item>
Result<void> read_list(const json& object, const char* key, std::vector<Item>& list) {
  const auto found = object.find(key);
  if (found == object.end()) return {};
  if (!found->is_array()) return fail(Exit::usage, "control socket: \"{}\" is not a list", key);
  for (const json& from : *found) {
    Item item;
    JAIL_CHECK(read(from, item, key));
    list.push_back(std::move(item));
  }
  return {};
}

Result<json> parse(std::string_view text, std::string_view what) {
  bool too_deep = false;
  const json::parser_callback_t callback = [&](int depth, json::parse_event_t, json&) {
    too_deep = too_deep || depth > max_depth;
    return !too_deep;  // what is too deep is not even kept
  };
  json object = json::parse(text.begin(), text.end(), callback, /*allow_exceptions=*/false);
  if (too_deep) return fail(Exit::usage, "control socket: {} is nested too deeply", what);
  if (object.is_discarded()) return fail(Exit::usage, "control socket: {} is not JSON", what);
  if (!object.is_object()) return fail(Exit::usage, "control socket: {} is not a JSON object", what);
  int version = 0;
  const auto found = object.find("v");
  if (found == object.end() || !Reader::take(*found, version))
    return fail(Exit::usage, "control socket: {} has no version", what);
  if (version != Request::current_version)
    return with_hint(fail(Exit::usage, "control socket: {} has version {}, not {}", what, version,
                          Request::current_version),
                     "use the `jail` that belongs to the running jaild, or restart jaild");
  return object;
}

// Cuts before a byte that begins a character, so that a cut never makes invalid UTF-8.
void cut(std::string& text, std::size_t limit) {
  if (text.size() <= limit) return;
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0U) == 0x80U) --limit;
  text.resize(limit);
  text += "...";
}

// Cuts the longest until all together have `total` bytes at most: the one that says why is often among them.
void cut_longest(std::vector<std::string>& lines, std::size_t total) {
  std::vector<std::size_t> sizes;
  for (const std::string& line : lines) sizes.push_back(line.size());
  std::sort(sizes.begin(), sizes.end());
  std::size_t limit = total;
  for (std::size_t i = 0; i < sizes.size(); ++i) {  // the short ones leave their share to the others
    limit = total / (sizes.size() - i);
    if (sizes[i] > limit) break;
    total -= sizes[i];
  }
  for (std::string& line : lines) cut(line, limit);
}

// JSON writes a control byte as six; with these limits one item stays below half of max_message.
ServiceStatus bounded(ServiceStatus status) {
  cut(status.name, 128);
  cut(status.state, 128);
  cut(status.reason, 1000);
  cut(status.check, 128);
  cut(status.check_failure, 1000);
  if (status.last_lines.size() > most_last_lines)
    status.last_lines.erase(status.last_lines.begin(), status.last_lines.end() - most_last_lines);
  cut_longest(status.last_lines, most_last_lines * std::size_t{160});
  if (status.not_enforced.size() > 16) status.not_enforced.resize(16);
  for (std::string& item : status.not_enforced) cut(item, 60);
  if (status.provides.size() > 16) status.provides.resize(16);
  for (std::string& item : status.provides) cut(item, 64);
  return status;
}

Outcome bounded(Outcome outcome) {
  cut(outcome.name, 128);
  cut(outcome.message, 2000);
  cut(outcome.hint, 500);
  if (outcome.lines.size() > most_last_lines)
    outcome.lines.erase(outcome.lines.begin(), outcome.lines.end() - most_last_lines);
  cut_longest(outcome.lines, most_last_lines * std::size_t{80});
  return outcome;
}

// Puts items into messages: into the last one while it is below the goal, else into a new one.
class Packer {
 public:
  explicit Packer(json head) : messages_{std::move(head)} { size_ = dump(messages_.back()).size(); }

  template <class Item>
  void add(const char* key, const std::vector<Item>& items) {
    for (const Item& item : items) {
      json object = write(bounded(item));
      const std::size_t size = dump(object).size() + 16;
      if (size_ > 0 && size_ + size > message_goal) {
        messages_.back()["more"] = true;
        messages_.push_back({{"v", Request::current_version}});
        size_ = 0;
      }
      messages_.back()[key].push_back(std::move(object));
      size_ += size;
    }
  }

  [[nodiscard]] std::vector<std::string> take() const {
    std::vector<std::string> texts;
    texts.reserve(messages_.size());
    for (const json& message : messages_) texts.push_back(dump(message));
    return texts;
  }

 private:
  std::vector<json> messages_;
  std::size_t size_ = 0;
};

}  // namespace

std::string to_json(const Request& request) {
  json object = write(request);
  object["v"] = Request::current_version;
  return dump(object);
}

std::string to_json(const Answer& answer) {
  json object = write(answer);
  object["v"] = Request::current_version;
  json& outcomes = object["outcomes"] = json::array();
  for (const Outcome& outcome : answer.outcomes) outcomes.push_back(write(outcome));
  json& services = object["services"] = json::array();
  for (const ServiceStatus& status : answer.services) services.push_back(write(status));
  return dump(object);
}

Result<Request> request_from_json(std::string_view text) {
  JAIL_TRY(object, parse(text, "the request"));
  Request request;
  JAIL_CHECK(read(object, request, "the request"));
  if (request.verb.empty()) return fail(Exit::usage, "control socket: the request has no verb");
  return request;
}

Result<bool> add_message(Answer& answer, std::string_view text, bool first) {
  JAIL_TRY(object, parse(text, "the answer"));
  if (first) JAIL_CHECK(read(object, answer, "the answer"));
  JAIL_CHECK(read_list(object, "outcomes", answer.outcomes));
  JAIL_CHECK(read_list(object, "services", answer.services));
  bool more = false;
  const auto found = object.find("more");
  if (found != object.end() && !Reader::take(*found, more))
    return fail(Exit::usage, "control socket: the answer: \"more\" has a wrong type");
  return more;
}

Result<Answer> answer_from_json(std::string_view text) {
  Answer answer;
  JAIL_TRY(more, add_message(answer, text, true));
  if (more) return fail(Exit::usage, "control socket: the answer is not whole");
  return answer;
}

std::vector<std::string> to_messages(const Answer& answer) {
  Answer head = answer;
  head.outcomes.clear();
  head.services.clear();
  cut(head.message, 3000);
  cut(head.hint, 1000);
  json object = write(head);
  object["v"] = Request::current_version;
  Packer packer(std::move(object));
  packer.add("outcomes", answer.outcomes);
  packer.add("services", answer.services);
  return packer.take();
}

}  // namespace jail::control
