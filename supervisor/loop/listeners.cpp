#include "supervisor/loop/listeners.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <sstream>

#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail::loop {
namespace {

constexpr unsigned state_close = 7;    ///< TCP_CLOSE: what an unconnected UDP socket is in
constexpr unsigned state_listen = 10;  ///< TCP_LISTEN

struct Request {
  nlmsghdr header;
  inet_diag_req_v2 body;
};

Listener listener_of(const nlmsghdr* header, Port::Protocol protocol) {
  const auto* message = static_cast<const inet_diag_msg*>(NLMSG_DATA(header));
  Listener found;
  found.port = {protocol, ntohs(message->id.idiag_sport)};
  found.inode = message->idiag_inode;
  auto left = static_cast<int>(header->nlmsg_len - NLMSG_LENGTH(sizeof *message));
  const auto* attribute = reinterpret_cast<const rtattr*>(message + 1);
  for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left))
    if (attribute->rta_type == INET_DIAG_CGROUP_ID && RTA_PAYLOAD(attribute) >= sizeof found.cgroup)
      std::memcpy(&found.cgroup, RTA_DATA(attribute), sizeof found.cgroup);
  return found;
}

/// One family's sockets; false when this kernel has no sock_diag for it.
Result<bool> dump_family(int netlink, int family, Port::Protocol protocol, std::vector<Listener>& into) {
  const bool tcp = protocol == Port::Protocol::tcp;
  Request request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.body.sdiag_family = static_cast<std::uint8_t>(family);
  request.body.sdiag_protocol = tcp ? IPPROTO_TCP : IPPROTO_UDP;
  request.body.idiag_states = 1U << (tcp ? state_listen : state_close);
  if (::send(netlink, &request, sizeof request, 0) < 0)
    return fail_errno(Exit::host, errno, "sock_diag: send");
  alignas(nlmsghdr) std::array<char, 32768> bytes{};
  while (true) {
    // The kernel puts the first part into the queue in send, each next in recv: this does not wait.
    const ssize_t got = ::recv(netlink, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return fail_errno(Exit::host, errno, "sock_diag: receive");
    auto left = static_cast<unsigned>(got);
    for (auto* header = reinterpret_cast<nlmsghdr*>(bytes.data()); NLMSG_OK(header, left);
         header = NLMSG_NEXT(header, left)) {
      if (header->nlmsg_type == NLMSG_DONE) return true;
      if (header->nlmsg_type == NLMSG_ERROR) {
        const int error = -static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error;
        if (error == ENOENT || error == EINVAL || error == EPROTONOSUPPORT || error == EAFNOSUPPORT)
          return false;
        return fail_errno(Exit::host, error, "sock_diag");
      }
      if (header->nlmsg_type == SOCK_DIAG_BY_FAMILY &&
          header->nlmsg_len >= NLMSG_LENGTH(sizeof(inet_diag_msg)))
        into.push_back(listener_of(header, protocol));
    }
  }
}

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

}  // namespace

std::string describe(const std::vector<Port>& ports) {
  std::string text;
  for (const Port& port : ports)
    text += fmt::format("{}{}:{}", text.empty() ? "" : ", ",
                        port.protocol == Port::Protocol::tcp ? "tcp" : "udp", port.number);
  return text;
}

Result<UniqueFd> open_foreign_network(pid_t pid) {
  UniqueFd theirs(::open(fmt::format("/proc/{}/ns/net", pid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!theirs) return fail_errno(Exit::io, errno, "cannot open the network namespace of {}", pid);
  struct stat mine {};
  struct stat its {};
  if (::stat("/proc/self/ns/net", &mine) != 0 || ::fstat(theirs.get(), &its) != 0)
    return fail_errno(Exit::io, errno, "cannot tell network namespaces apart");
  if (mine.st_ino == its.st_ino && mine.st_dev == its.st_dev) theirs.reset();
  return theirs;
}

Result<ListenerProbe> ListenerProbe::open(int network, bool alone, pid_t init, std::uint64_t cgroup_id) {
  ListenerProbe probe;
  probe.alone_ = alone;
  probe.init_ = init;
  probe.cgroup_ = cgroup_id;
  UniqueFd home;
  if (network >= 0) {
    home.reset(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!home || ::setns(network, CLONE_NEWNET) != 0)
      return fail_errno(Exit::host, errno, "cannot enter the service's network namespace");
  }
  probe.netlink_.reset(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  const int error = errno;
  // Without a way home every later launch would happen in the wrong namespace: nothing to go on with.
  if (network >= 0 && ::setns(home.get(), CLONE_NEWNET) != 0) ::_exit(static_cast<int>(Exit::internal));
  if (!probe.netlink_) return fail_errno(Exit::host, error, "cannot make a sock_diag socket");
  return probe;
}

Result<std::vector<Listener>> ListenerProbe::listeners(Port::Protocol protocol) const {
  std::vector<Listener> found;
  for (const int family : {AF_INET, AF_INET6}) {
    auto known = dump_family(netlink_.get(), family, protocol, found);
    if (!known) return tl::unexpected(std::move(known).error());
    if (*known) continue;
    const std::string file =
        fmt::format("/proc/{}/net/{}{}", init_, protocol == Port::Protocol::tcp ? "tcp" : "udp",
                    family == AF_INET6 ? "6" : "");
    if (const auto text = read_file_at(AT_FDCWD, file, 16U << 20U))
      for (const Listener& listener : parse_proc_net(*text, protocol)) found.push_back(listener);
  }
  return found;
}

Result<std::vector<Port>> ListenerProbe::missing(const std::vector<Port>& wanted) const {
  std::vector<Port> absent = wanted;
  std::set<std::uint64_t> inodes;
  bool scanned = false;
  for (const Port::Protocol protocol : {Port::Protocol::tcp, Port::Protocol::udp}) {
    auto is_wanted = [&](const Port& port) { return port.protocol == protocol; };
    if (std::none_of(absent.begin(), absent.end(), is_wanted)) continue;
    JAIL_TRY(found, listeners(protocol));
    for (const Listener& listener : found) {
      if (std::find(absent.begin(), absent.end(), listener.port) == absent.end()) continue;
      bool ours = alone_ || (cgroup_ != 0 && listener.cgroup == cgroup_);
      if (!ours && (cgroup_ == 0 || listener.cgroup == 0)) {
        if (!std::exchange(scanned, true)) inodes = socket_inodes(processes_below(init_));
        ours = inodes.contains(listener.inode);
      }
      if (ours) std::erase(absent, listener.port);
    }
  }
  return absent;
}

std::vector<pid_t> processes_below(pid_t init) {
  std::vector<pid_t> all{init};
  for (std::size_t i = 0; i < all.size() && i < 4096; ++i) {
    // Children belong to the thread that made them.
    const std::string tasks = fmt::format("/proc/{}/task", all[i]);
    const std::unique_ptr<DIR, CloseDir> dir(::opendir(tasks.c_str()));
    while (const dirent* entry = dir ? ::readdir(dir.get()) : nullptr) {
      if (entry->d_name[0] == '.') continue;
      const auto text =
          read_file_at(AT_FDCWD, fmt::format("{}/{}/children", tasks, entry->d_name), 1U << 20U);
      if (!text) continue;
      std::istringstream words(*text);
      for (pid_t child = 0; words >> child;) all.push_back(child);
    }
  }
  return all;
}

std::set<std::uint64_t> socket_inodes(const std::vector<pid_t>& processes) {
  std::set<std::uint64_t> inodes;
  for (const pid_t pid : processes) {
    const std::unique_ptr<DIR, CloseDir> dir(::opendir(fmt::format("/proc/{}/fd", pid).c_str()));
    while (const dirent* entry = dir ? ::readdir(dir.get()) : nullptr) {
      std::array<char, 64> target{};
      if (::readlinkat(::dirfd(dir.get()), entry->d_name, target.data(), target.size() - 1) <= 0) continue;
      constexpr std::string_view prefix = "socket:[";
      const std::string_view text(target.data());
      std::uint64_t inode = 0;
      if (text.starts_with(prefix) &&
          std::from_chars(text.data() + prefix.size(), text.data() + text.size(), inode).ec == std::errc{})
        inodes.insert(inode);
    }
  }
  return inodes;
}

std::string describe_holders(const Port& port) {
  constexpr std::size_t enough = 4;
  std::set<std::uint64_t> wanted;
  const auto probe = ListenerProbe::open(-1, false, ::getpid(), 0);
  const auto listeners = probe ? probe->listeners(port.protocol) : Result<std::vector<Listener>>();
  if (!probe || !listeners) return {};
  for (const Listener& listener : *listeners)
    if (listener.port == port) wanted.insert(listener.inode);
  std::string names;
  std::size_t count = 0;
  const std::unique_ptr<DIR, CloseDir> dir(::opendir("/proc"));
  while (const dirent* entry = dir && count < enough ? ::readdir(dir.get()) : nullptr) {
    const std::string_view text(entry->d_name);
    pid_t pid = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), pid).ec != std::errc()) continue;
    const auto inodes = socket_inodes({pid});
    if (std::none_of(wanted.begin(), wanted.end(),
                     [&](std::uint64_t inode) { return inodes.contains(inode); }))
      continue;
    std::string name = read_file_at(AT_FDCWD, fmt::format("/proc/{}/comm", pid), 64).value_or("?");
    if (name.ends_with('\n')) name.pop_back();
    names += fmt::format("{}{} (pid {})", names.empty() ? "" : ", ", escape(name), pid);
    ++count;
  }
  return names;
}

std::vector<Listener> parse_proc_net(std::string_view text, Port::Protocol protocol) {
  const unsigned wanted = protocol == Port::Protocol::tcp ? state_listen : state_close;
  std::vector<Listener> found;
  std::istringstream lines{std::string(text)};
  std::string line;
  std::getline(lines, line);  // the heading
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    std::string slot, local, remote, state, queues, timer, retransmits, uid, timeout;
    Listener listener;
    if (!(words >> slot >> local >> remote >> state >> queues >> timer >> retransmits >> uid >> timeout >>
          listener.inode))
      continue;
    const std::size_t colon = local.rfind(':');
    unsigned number = 0;
    unsigned code = 0;
    if (colon == std::string::npos) continue;
    std::from_chars(local.data() + colon + 1, local.data() + local.size(), number, 16);
    std::from_chars(state.data(), state.data() + state.size(), code, 16);
    if (code != wanted || number == 0 || number > 65535) continue;
    listener.port = {protocol, static_cast<std::uint16_t>(number)};
    found.push_back(listener);
  }
  return found;
}

}  // namespace jail::loop
