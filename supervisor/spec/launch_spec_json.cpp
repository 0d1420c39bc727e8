// The JSON form of a launch spec. Each struct is described once, by describe(); the same description writes
// and reads.
#include <linux/capability.h>

#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <type_traits>

#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"
#include "supervisor/spec/instance.h"
#include "supervisor/spec/launch_spec.h"
#include "supervisor/spec/socket_address.h"

namespace jail {
namespace {

using Json = nlohmann::json;  // an object is sorted by key

template <class E>
struct EnumName {
  E value;
  const char* name;
};

template <class E>
constexpr auto enum_names();
template <>
constexpr auto enum_names<Mount::Kind>() {
  using K = Mount::Kind;
  return std::array{EnumName<K>{K::bind, "bind"}, EnumName<K>{K::tmpfs, "tmpfs"},
                    EnumName<K>{K::proc, "proc"}, EnumName<K>{K::dev, "dev"}};
}
template <>
constexpr auto enum_names<Port::Protocol>() {
  using P = Port::Protocol;
  return std::array{EnumName<P>{P::tcp, "tcp"}, EnumName<P>{P::udp, "udp"}};
}
template <>
constexpr auto enum_names<Restart::On>() {
  using O = Restart::On;
  return std::array{EnumName<O>{O::never, "never"}, EnumName<O>{O::failure, "failure"},
                    EnumName<O>{O::always, "always"}};
}
template <>
constexpr auto enum_names<Reload::How>() {
  using H = Reload::How;
  return std::array{EnumName<H>{H::refuse, "refuse"}, EnumName<H>{H::signal, "signal"},
                    EnumName<H>{H::restart, "restart"}};
}
template <>
constexpr auto enum_names<LaunchSpec::Network>() {
  using N = LaunchSpec::Network;
  return std::array{EnumName<N>{N::host, "host"}, EnumName<N>{N::none, "none"},
                    EnumName<N>{N::private_, "private"}, EnumName<N>{N::named, "netns"}};
}

// A capability mask is shown by names.
struct Capabilities {
  std::uint64_t& mask;
};

// A signal is shown by its name; 0 is "".
struct SignalValue {
  int& number;
};

template <class V>
void describe(V& v, Mount& m) {
  v("kind", m.kind), v("source", m.source), v("target", m.target), v("writable", m.writable),
      v("exec", m.exec);
  v("size", m.size), v("mode", m.mode), v("uid", m.uid), v("gid", m.gid), v("optional", m.optional);
}
template <class V>
void describe(V& v, Device& d) {
  v("path", d.path);
}
template <class V>
void describe(V& v, Rlimit& r) {
  v("resource", r.resource), v("soft", r.soft), v("hard", r.hard), v("at_most", r.at_most);
}
template <class V>
void describe(V& v, Port& p) {
  v("protocol", p.protocol), v("number", p.number);
}
template <class V>
void describe(V& v, Socket& s) {
  v("name", s.name), v("listen", s.listen), v("backlog", s.backlog), v("mode", s.mode), v("uid", s.uid),
      v("gid", s.gid);
}
template <class V>
void describe(V& v, Credentials& c) {
  Capabilities capabilities{c.capabilities};
  v("uid", c.uid), v("gid", c.gid), v("groups", c.groups), v("capabilities", capabilities),
      v("umask", c.umask);
}
template <class V>
void describe(V& v, Restart& r) {
  v("on", r.on), v("delay_ms", r.delay), v("max_delay_ms", r.max_delay), v("limit", r.limit);
  v("window_ms", r.window);
}
template <class V>
void describe(V& v, Stop& s) {
  SignalValue signal{s.signal};
  v("signal", signal), v("timeout_ms", s.timeout);
}
template <class V>
void describe(V& v, Reload& r) {
  SignalValue signal{r.signal};
  v("how", r.how), v("signal", signal);
}
template <class V>
void describe(V& v, Ready& r) {
  v("notify", r.notify), v("listen", r.listen), v("check", r.check), v("timeout_ms", r.timeout);
}
template <class V>
void describe(V& v, Check& c) {
  v("command", c.command), v("expect", c.expect), v("timeout_ms", c.timeout), v("interval_ms", c.interval);
}
template <class V>
void describe(V& v, Limits& l) {
  v("memory", l.memory), v("processes", l.processes);
}
template <class V>
void describe(V& v, ManifestSource& s) {
  v("path", s.path), v("sha256", s.sha256);
}
template <class V>
void describe(V& v, LaunchSpec& s) {
  v("version", s.version), v("name", s.name), v("description", s.description);
  v("provides", s.provides), v("sources", s.sources);
  v("argv", s.argv), v("env", s.env), v("cwd", s.cwd), v("hostname", s.hostname);
  v("network", s.network), v("network_name", s.network_name);
  v("credentials", s.credentials), v("mounts", s.mounts), v("devices", s.devices), v("rlimits", s.rlimits);
  v("log_sockets", s.log_sockets);
  v("limits", s.limits), v("oom_score_adjust", s.oom_score_adjust), v("nice", s.nice);
  v("memory_deny_write_execute", s.memory_deny_write_execute), v("require", s.require);
  v("sockets", s.sockets), v("ready", s.ready), v("check", s.check);
  v("listen_ports", s.listen_ports), v("optional_ports", s.optional_ports),
      v("connect_ports", s.connect_ports), v("restrict_ports", s.restrict_ports);
  v("restart", s.restart), v("stop", s.stop), v("reload", s.reload), v("check_config", s.check_config);
}

class Writer {
 public:
  template <class T>
  void operator()(const char* key, T& value) {
    object_[key] = make(value);
  }
  Json take() { return std::move(object_); }

 private:
  template <class T>
  static Json make(T& value) {
    if constexpr (std::is_enum_v<T>) {
      for (const auto& [known, name] : enum_names<T>())
        if (known == value) return name;
      return nullptr;
    } else if constexpr (std::is_same_v<T, milliseconds>) {
      return value.count();
    } else if constexpr (std::is_same_v<T, Capabilities>) {
      return capability_names(value.mask);
    } else if constexpr (std::is_same_v<T, SignalValue>) {
      return value.number == 0 ? Json("") : Json(signal_name(value.number));
    } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
      return value;
    } else {
      return make_compound(value);
    }
  }
  template <class T>
  static Json make_compound(std::vector<T>& values) {
    Json array = Json::array();
    for (auto& value : values) array.push_back(make(value));
    return array;
  }
  template <class T>
  static Json make_compound(std::optional<T>& value) {
    return value ? make(*value) : Json(nullptr);
  }
  template <class T>
  static Json make_compound(T& value) {
    Writer inner;
    describe(inner, value);
    return inner.take();
  }

  Json object_ = Json::object();
};

// Reads one object; remembers the first thing that is wrong, with its path.
class Reader {
 public:
  Reader(const Json& object, std::string path, std::string& problem)
      : object_(object), path_(std::move(path)), problem_(problem) {
    if (!object_.is_object()) complain(path_, "must be an object");
  }

  template <class T>
  void operator()(const char* key, T& value) {
    if (!problem_.empty()) return;
    const std::string here = path_.empty() ? key : path_ + "." + key;
    const auto found = object_.find(key);
    if (found == object_.end()) return complain(here, "is missing");
    seen_.insert(key);
    read(*found, here, value);
  }

  void finish() {
    if (!problem_.empty()) return;
    for (const auto& [key, value] : object_.items())
      if (!seen_.contains(key))
        return complain(path_.empty() ? key : path_ + "." + key, "is not a known key");
  }

 private:
  void complain(const std::string& where, const std::string& what) {
    if (problem_.empty()) problem_ = quote(where) + " " + what;
  }

  template <class T>
  void read_integer(const Json& from, const std::string& here, T& value) {
    const bool fits =
        from.is_number_unsigned()
            ? from.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<T>::max())
            : from.is_number_integer() && std::is_signed_v<T> &&
                  from.get<std::int64_t>() >= static_cast<std::int64_t>(std::numeric_limits<T>::min());
    if (!fits) return complain(here, "must be an integer in range");
    value = from.get<T>();
  }

  template <class T>
  void read(const Json& from, const std::string& here, T& value) {
    if constexpr (std::is_enum_v<T>) {
      if (from.is_string())
        for (const auto& [known, name] : enum_names<T>())
          if (from.get_ref<const std::string&>() == name) return void(value = known);
      complain(here, "is not one of the known words");
    } else if constexpr (std::is_same_v<T, bool>) {
      if (!from.is_boolean()) return complain(here, "must be true or false");
      value = from.get<bool>();
    } else if constexpr (std::is_same_v<T, milliseconds>) {
      std::int64_t count = 0;
      read_integer(from, here, count);
      // A year: what is longer is a mistake, and sums of such times stay far from overflow.
      if (count < 0 || count > 366LL * 24 * 3600 * 1000)
        return complain(here, "is not a time in milliseconds");
      value = milliseconds(count);
    } else if constexpr (std::is_integral_v<T>) {
      read_integer(from, here, value);
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!from.is_string()) return complain(here, "must be a string");
      value = from.get<std::string>();
      if (value.find('\0') != std::string::npos) complain(here, "holds a NUL byte");
    } else {
      read_compound(from, here, value);
    }
  }
  template <class T>
  void read_compound(const Json& from, const std::string& here, std::vector<T>& values) {
    if (!from.is_array()) return complain(here, "must be an array");
    values.clear();
    for (std::size_t i = 0; i < from.size(); ++i) {
      values.emplace_back();
      read(from[i], fmt::format("{}[{}]", here, i), values.back());
    }
  }
  template <class T>
  void read_compound(const Json& from, const std::string& here, std::optional<T>& value) {
    value.reset();
    if (!from.is_null()) read(from, here, value.emplace());
  }
  void read_compound(const Json& from, const std::string& here, Capabilities& value) {
    std::vector<std::string> names;
    read(from, here, names);
    value.mask = 0;
    for (const std::string& name : names) {
      const auto number = capability_number(name);
      if (!number) return complain(here, "names an unknown capability");
      value.mask |= std::uint64_t{1} << *number;
    }
  }
  void read_compound(const Json& from, const std::string& here, SignalValue& value) {
    std::string name;
    read(from, here, name);
    const auto number = name.empty() ? std::optional(0) : signal_number(name);
    if (!number) return complain(here, "is not the name of a signal");
    value.number = *number;
  }
  template <class T>
  void read_compound(const Json& from, const std::string& here, T& value) {
    Reader inner(from, here, problem_);
    describe(inner, value);
    inner.finish();
  }

  const Json& object_;
  std::string path_;
  std::string& problem_;
  std::set<std::string> seen_;
};

}  // namespace

std::string to_json(const LaunchSpec& spec) {
  LaunchSpec copy = spec;  // describe() serves both directions and so wants a mutable one
  Writer writer;
  describe(writer, copy);
  return writer.take().dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<LaunchSpec> launch_spec_from_json(std::string_view text, std::string_view name) {
  auto broken = [&](const std::string& what) {
    return with_hint(fail(Exit::config, "{}: {}", name, what),
                     "build the jail again: jail build --force NAME");
  };
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) return broken("not valid JSON");
  if (!json.is_object()) return broken("not a JSON object");
  const auto version = json.find("version");
  if (version == json.end() || !version->is_number_integer() || *version != LaunchSpec::current_version)
    return broken(fmt::format("not of version {}", LaunchSpec::current_version));
  LaunchSpec spec;
  std::string problem;
  Reader reader(json, "", problem);
  describe(reader, spec);
  reader.finish();
  if (!problem.empty()) return broken(problem);
  if (spec.argv.empty() || !spec.argv.front().starts_with('/'))
    return broken("'argv' has no absolute program");
  if ((spec.network == LaunchSpec::Network::named) != valid_network_name(spec.network_name) ||
      (spec.network != LaunchSpec::Network::named && !spec.network_name.empty()))
    return broken("'network_name' does not fit 'network'");
  for (const std::string& provided : spec.provides)
    if (!valid_name(provided)) return broken("'provides': " + quote(provided, 64) + " is not a name");
  for (const Socket& socket : spec.sockets)
    if (const auto address = parse_socket_address(socket.listen); !address)
      return broken("'sockets': " + address.error().message);
  return spec;
}

Result<LaunchSpec> read_launch_spec(const generation::Opened& opened) {
  constexpr std::size_t most = std::size_t{4} << 20U;
  JAIL_TRY(text, read_file_at(opened.dir.get(), generation::launch, most, false));
  return launch_spec_from_json(text, opened.path + "/" + generation::launch);
}

}  // namespace jail
