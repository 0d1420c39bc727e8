// jail-relay: started by jaild with the control socket at 3 and the ring at 4. Not for users.
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ctime>

#include "supervisor/log/confine.h"
#include "supervisor/log/message.h"
#include "supervisor/log/relay_process.h"

namespace {

using namespace jail;
using namespace jail::log;

int run() {
  UniqueFd control(control_fd);
  int type = 0;
  socklen_t size = sizeof type;
  if (::getsockopt(control_fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_SEQPACKET) {
    fmt::print(stderr, "jail-relay: started by jaild, not by hand\n");
    return static_cast<int>(Exit::usage);
  }
  ::tzset();  // while there is an /etc/localtime
  auto ring = Ring::attach(ring_fd);
  Result<void> ready = ring ? confine() : tl::unexpected(ring.error());
  if (!ready) {
    Message message;
    message.type = Type::note;
    message.set_text(ready.error().message);
    (void)send_message(control_fd, message);
    return static_cast<int>(ready.error().exit);
  }
  return RelayProcess(std::move(control), std::move(*ring)).run();
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const std::exception&) {  // no memory: the next relay finds all in the ring
    return static_cast<int>(jail::Exit::internal);
  }
}
