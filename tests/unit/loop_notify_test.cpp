// What a daemon says by sd_notify: hostile bytes in, plain facts out.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <random>

#include "catch.h"
#include "supervisor/loop/notify_socket.h"

namespace {

using namespace jail;
using namespace jail::loop;

struct Folder {
  std::string path;
  Folder() {
    char name[] = "/tmp/jail-notify-XXXXXX";
    path = ::mkdtemp(name);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

UniqueFd sender_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  REQUIRE(path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  REQUIRE(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  return fd;
}

}  // namespace

TEST_CASE("A notification says what it says") {
  CHECK(parse_notify("READY=1") == NotifyMessage{true, false, false, {}, {}});
  CHECK(parse_notify("READY=1\n") == NotifyMessage{true, false, false, {}, {}});
  CHECK(parse_notify("RELOADING=1\nMONOTONIC_USEC=7\n") == NotifyMessage{false, true, false, {}, {}});
  CHECK(parse_notify("STOPPING=1\nSTATUS=bye = now") == NotifyMessage{false, false, true, "bye = now", {}});
  CHECK(parse_notify("STATUS=\nMAINPID=42\nREADY=1") == NotifyMessage{true, false, false, "", 42});
  CHECK(parse_notify("READY=1\nREADY=0") == NotifyMessage());
}

TEST_CASE("What is no notification of ours says nothing") {
  for (const char* text :
       {"", "\n", "\n\n\n", "=", "=\n=", "READY", "READY=", "READY=10", "READY= 1", " READY=1", "ready=1",
        "READY=1\r\n", "READY=yes", "WATCHDOG=1", "FDSTORE=1", "XREADY=1"}) {
    INFO(text);
    CHECK(parse_notify(text) == NotifyMessage());
  }
  CHECK(parse_notify(std::string_view("READY=1\0", 8)) == NotifyMessage());
  CHECK(parse_notify(std::string_view("\0READY=1", 8)) == NotifyMessage());
}

TEST_CASE("A main pid is the number of one process, or none") {
  CHECK(parse_notify("MAINPID=2147483647").main_pid == 2147483647);
  for (const char* text : {"MAINPID=", "MAINPID=0", "MAINPID=-1", "MAINPID=-42", "MAINPID=2147483648",
                           "MAINPID=+1", "MAINPID= 1", "MAINPID=1 ", "MAINPID=0x10", "MAINPID=1.5",
                           "MAINPID=99999999999999999999", "MAINPID=7\nMAINPID=-1"}) {
    INFO(text);
    CHECK_FALSE(parse_notify(text).main_pid);
  }
}

TEST_CASE("A status is one line of bounded length") {
  CHECK(parse_notify("STATUS=" + std::string(100'000, 'x')).status == std::string(256, 'x'));
  CHECK(parse_notify("STATUS=a\nb\nSTATUS=c").status == "c");
  CHECK(parse_notify("STATUS=\xff\x1b[2J").status == "\xff\x1b[2J");
}

TEST_CASE("Whatever comes as a datagram, reading it ends, and its words stay within bounds") {
  std::mt19937 random(7);  // fixed: a failure can be repeated
  const std::string pieces[] = {
      "READY=", "1", "\n", "=", "STATUS=", "MAINPID=", "-", "9", std::string(1, '\0'), "\xff"};
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    for (auto part = random() % 40; part > 0; --part) text += pieces[random() % std::size(pieces)];
    const NotifyMessage message = parse_notify(text);
    REQUIRE((!message.status ||
             (message.status->size() <= 256 && message.status->find('\n') == std::string::npos)));
    REQUIRE((!message.main_pid || *message.main_pid > 0));
  }
}

TEST_CASE("The socket tells who sent, keeps what was only looked at, and takes no descriptors") {
  const Folder folder;
  const std::string path = folder.path + "/notify";
  const auto made = make_notify_socket(path);
  INFO((made ? std::string() : made.error().message));
  REQUIRE(made);
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 07777U) == 0666);
  CHECK_FALSE(peek_notify(made->get()));

  const UniqueFd sender = sender_to(path);
  REQUIRE(::send(sender.get(), "READY=1", 7, 0) == 7);
  for (int look = 0; look < 3; ++look) {
    const auto seen = peek_notify(made->get());
    REQUIRE(seen);
    CHECK(seen->message.ready);
    CHECK(seen->pid == ::getpid());
    CHECK(seen->uid == ::getuid());
    CHECK_FALSE(seen->cut);
  }
  consume_notify(made->get());
  CHECK_FALSE(peek_notify(made->get()));

  // Longer than is read: told, so that nobody believes half of it. Empty ones are datagrams too.
  const std::string large = "READY=1\n" + std::string(8000, 'x');
  REQUIRE(::send(sender.get(), large.data(), large.size(), 0) > 0);
  REQUIRE(::send(sender.get(), "", 0, 0) == 0);
  REQUIRE(peek_notify(made->get()));
  CHECK(peek_notify(made->get())->cut);
  consume_notify(made->get());
  const auto empty = peek_notify(made->get());
  REQUIRE(empty);
  CHECK(empty->message == NotifyMessage());
  consume_notify(made->get());

  // Descriptors that come along are not kept: the next free number stays the same.
  const UniqueFd before(::dup(0));
  const int next = before.get();
  iovec part{const_cast<char*>("FDSTORE=1"), 9};
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  cmsghdr* item = CMSG_FIRSTHDR(&header);
  item->cmsg_level = SOL_SOCKET;
  item->cmsg_type = SCM_RIGHTS;
  item->cmsg_len = CMSG_LEN(2 * sizeof(int));
  const int fds[2] = {0, 0};
  std::memcpy(CMSG_DATA(item), fds, sizeof fds);
  REQUIRE(::sendmsg(sender.get(), &header, 0) == 9);
  REQUIRE(peek_notify(made->get()));
  CHECK(peek_notify(made->get())->pid == ::getpid());
  consume_notify(made->get());
  CHECK_FALSE(peek_notify(made->get()));
  const UniqueFd after(::dup(0));
  CHECK(after.get() == next + 1);
}

TEST_CASE("A socket takes the place of an old one, below a home of any length, and says why it cannot") {
  const Folder folder;
  const std::string deep = folder.path + "/" + std::string(100, 'a') + "/" + std::string(100, 'b');
  std::filesystem::create_directories(deep);
  REQUIRE(make_notify_socket(deep + "/notify"));
  REQUIRE(make_notify_socket(deep + "/notify"));
  const auto none = make_notify_socket(folder.path + "/none/notify");
  REQUIRE_FALSE(none);
  CHECK(none.error().message.find("/none/notify") != std::string::npos);
  CHECK_FALSE(make_notify_socket(folder.path + "/" + std::string(200, 'c')));
}

TEST_CASE("A process is known by its namespace and by the pid it has in there") {
  CHECK(pid_namespace(::getpid()).starts_with("pid:["));
  CHECK(pid_namespace(::getpid()).ends_with("]"));
  CHECK(own_pid(::getpid()) == ::getpid());
  CHECK(pid_namespace(2147483647).empty());
  CHECK(own_pid(2147483647) == 0);
}
