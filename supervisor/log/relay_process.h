// The process jail-relay: receives from every jail, writes to files and to the host's syslog.
//
// One thread, one loop. No jail gets more than one batch a turn, whatever it sends. Nothing waits but
// epoll_wait: a sink that takes nothing is tried again later, and what it should have had stays in the ring.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "supervisor/log/message.h"
#include "supervisor/log/ring.h"
#include "supervisor/log/sink_file.h"
#include "supervisor/log/sink_syslog.h"

namespace jail::log {

class RelayProcess {
 public:
  /// Takes `control` (owned) and the ring (attached). Confined already.
  RelayProcess(UniqueFd control, Ring ring);

  /// Serves until jaild closes the control socket, or `jail-relay` cannot go on. The exit status.
  int run();

 private:
  struct Jail {
    explicit Jail(Region its) : region(its) {}
    Region region;
    std::array<UniqueFd, 3> sources;  ///< by Source
    FileSink file;
    bool removing = false;
    bool busy = false;                ///< has something to write
    std::uint64_t file_again_us = 0;  ///< not before
    std::uint64_t asked_us = 0;       ///< for a new file
  };
  using Fds = std::array<UniqueFd, fd_limit>;

  void on_control();
  void handle(const Message& message, Fds& fds);
  void add(const Message& message, Fds& fds);
  void set_host(const Message& message, Fds& fds);
  void remove(Jail& jail);
  void lose(const std::string& name, std::uint64_t count);
  void watch(Jail& jail, Source source, UniqueFd fd);
  void unwatch(Jail& jail, Source source);
  void drain(Jail& jail);
  bool receive(Jail& jail, Source source);
  void flush(Jail& jail, std::uint64_t now);
  void flush_all();
  void flush_file(Jail& jail, std::uint64_t now);
  void flush_syslog(Jail& jail, std::uint64_t now);
  void flush_partials(std::uint64_t now);
  void finish();
  void say(Type type, std::string_view name, std::uint64_t value = 0, std::string_view text = {});
  Jail* find(const std::string& name);
  [[nodiscard]] int timeout() const;

  UniqueFd control_;
  Ring ring_;
  UniqueFd epoll_;
  SyslogSink host_;
  bool syslog_wanted_ = true;
  bool host_asked_ = false;
  bool closed_ = false;
  bool at_once_ = false;  ///< somebody has more to write
  bool later_ = false;    ///< somebody waits for a sink
  std::uint64_t host_again_us_ = 0;
  std::uint64_t partials_us_ = 0;  ///< when to look at unfinished lines; 0: there are none
  std::unordered_map<std::uint32_t, std::unique_ptr<Jail>> jails_;  ///< by region
};

}  // namespace jail::log
