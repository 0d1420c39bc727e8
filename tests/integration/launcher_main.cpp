// launcher GENERATION INIT: launches a generation once its stdin ends, and waits for the end of the jail. Its
// exit status is the errno of the step that failed, 0 if none did.
// Between the two it makes as few system calls as it can: whoever traces it wants those of the set-up.
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "supervisor/sandbox/sandbox.h"

int main(int argc, char** argv) {
  using namespace jail;
  if (argc != 3) return 64;
  ::alarm(30);  // a jail that hangs in its set-up ends with us
  generation::Opened opened;
  opened.path = argv[1];
  opened.number = 1;
  opened.dir.reset(::open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto prepared = sandbox::Prepared::prepare(opened);
  if (!prepared) {
    std::fprintf(stderr, "launcher: %s\n", prepared.error().message.c_str());
    return 78;
  }
  sandbox::LaunchInputs inputs;
  const UniqueFd init(::open(argv[2], O_PATH | O_CLOEXEC));
  const UniqueFd sink(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  inputs.init_fd = init.get();
  inputs.stdout_fd = inputs.stderr_fd = sink.get();
  pollfd end{0, POLLIN, 0};
  ::poll(&end, 1, -1);
  const auto launched = sandbox::launch(*prepared, inputs);
  if (!launched) return 71;
  siginfo_t info{};
  if (::waitid(P_PIDFD, static_cast<id_t>(launched->init.get()), &info, WEXITED) < 0) return 70;
  const auto report = sandbox::read_report(launched->report.get());
  if (!report || !report->has_value()) return 70;
  return (*report)->kind == sandbox::Report::Kind::failed ? (*report)->error : 0;
}
