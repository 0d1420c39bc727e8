"""jail refresh: a stale jail is built anew, its service changed over and put on trial, and on failure all is as before. The
daemon is made here, in versions that work and versions that do not."""

import os
import pathlib
import signal
import socket
import subprocess
import time

import pytest

from jailtest import Instance, own_network, send, wait_for
from packages import layered

DAEMON = pathlib.Path("/usr/bin/jail-thing")
PORT = 7070
SOURCE = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char** argv) {
  setvbuf(stderr, NULL, _IOLBF, 0);
  if (argc > 1) { if (ACCEPTS) return 0; fprintf(stderr, "thing.conf:1: no such word in " VERSION "\n"); return 1; }
  if (STARTS == 0) { fprintf(stderr, "thing " VERSION ": cannot work here\n"); return 3; }
  if (STARTS > 1) sleep(STARTS);
  if (LIVES) alarm(LIVES);
  int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7070), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(s, (void*)&a, sizeof a) || listen(s, 8)) { perror("thing"); return 4; }
  for (;;) {
    int c = accept(s, NULL, NULL);
    if (ANSWERS) (void)!write(c, "thing " VERSION "\n", strlen("thing " VERSION "\n"));
    close(c);
  }
}
"""
MANIFEST = """
version = 1
[tree]
binaries = ["/usr/bin/jail-thing"]
users = ["nobody"]
[service]
command = ["/usr/bin/jail-thing"]
user = "nobody"
ready = "listen"
ready_timeout = "3s"
restart = { on = "failure", delay = "100ms", limit = "2/60s" }
{more}
[sandbox]
syscalls = ["@default", "@network-server"]
ports = { listen = ["tcp:7070"] }
"""
CHECK = """
[check]
command = ["/bin/bash", "-c", "sleep {seconds}; exec 3<>/dev/tcp/127.0.0.1/7070; cat <&3"]
expect = "thing"
timeout = "{timeout}s"
"""


def check(seconds=0):
    return CHECK.format(seconds=seconds, timeout=seconds + 1)


AUTOMATIC = "[refresh]\nautomatic = true\n"


def install(version, starts=1, lives=0, answers=1, accepts=1):
    """The daemon as another version of its package would bring it: a new file in the place of the old one."""
    defines = [f'-DVERSION="{version}"', f"-DSTARTS={starts}", f"-DLIVES={lives}", f"-DANSWERS={answers}", f"-DACCEPTS={accepts}"]
    made = DAEMON.with_name(".jail-thing.new")
    subprocess.run(["cc", "-O1", "-static", "-x", "c", "-", "-o", made, *defines], input=SOURCE, text=True, check=True)
    made.rename(DAEMON)


def answer():
    try:
        with socket.create_connection(("127.0.0.1", PORT), 2) as s:
            return s.makefile().read().strip()
    except OSError:
        return None


@pytest.fixture(scope="module", autouse=True)
def network():
    own_network()


class House(Instance):
    def write(self, asks=check(), more=""):
        self.manifest("thing", MANIFEST.replace("{more}", more) + asks)

    def current(self, name="thing"):
        return int(os.readlink(self.home / "state/jails" / name / "current").split("/")[1])

    def generations(self, name="thing"):
        return [row["generation"] for row in self.json("history", name)["generations"]]

    def serves(self, version, generation):
        assert (answer(), self.current()) == (f"thing {version}", generation)
        status = self.status("thing")
        assert (status["state"], status["generation"]) == ("ready", generation)
        return status["pid"]


@pytest.fixture
def it():
    with layered(), House() as house:
        install("1.0")
        house.write()
        house.run("build", "thing")
        house.start_jaild()
        house.run("start", "thing")
        yield house


def test_a_stale_one_is_changed_over_and_asked(it):
    assert it.run("refresh", "thing").stdout == "thing: as on the host\n"
    pid = it.serves("1.0", 1)
    install("1.1")
    assert it.run("refresh", "thing", "--dry-run").stdout.splitlines()[-1].startswith("thing: would be refreshed, and its service restarted")
    assert it.serves("1.0", 1) == pid
    assert it.run("refresh", "thing").stdout == "thing: /usr/bin/jail-thing differs\nthing: generation 2 serves, was 1\n"
    assert it.serves("1.1", 2) != pid
    assert it.status("thing")["check"] == "ok"
    assert it.run("stale").stdout == it.run("ps", "--stale").stdout == ""
    pid = it.serves("1.1", 2)
    assert it.run("refresh", "--all").stdout == ""
    assert it.serves("1.1", 2) == pid
    install("1.0")
    assert it.json("refresh", "--all")["jails"][0]["outcome"] == "serves"
    it.serves("1.0", 3)


def test_one_that_does_not_start_goes_back_and_says_why(it):
    install("2.0", starts=0)
    failed = it.run("refresh", "thing", status=1)
    print(failed.stderr)
    assert "thing: generation 2 does not serve: exited with status 3 before it was ready" in failed.stderr
    assert "thing 2.0: cannot work here" in failed.stderr
    assert "generation 1 serves again" in failed.stderr and "jail diff thing 1 2" in failed.stderr
    it.serves("1.0", 1)
    # It is still stale, and says so.
    assert it.json("list")["jails"][0]["stale"] == ["/usr/bin/jail-thing differs"]
    assert [line.split(":")[0] for line in it.status("thing")["stale"]] == ["/usr/bin/jail-thing differs", "generation 2 was tried and does not serve"]
    shown = it.run("status").stdout
    assert "not as on the host; run: jail refresh thing" in shown and "generation 2 was tried and does not serve: exited" in shown
    it.run("diff", "thing", 1, 2, status=1)
    # The next try is one of its own; of what failed the last is kept, and none once one serves.
    it.run("refresh", "thing", status=1)
    assert it.generations() == [3, 1]
    install("2.1")
    it.run("refresh", "thing")
    it.serves("2.1", 4)
    assert it.generations() == [4, 1]
    assert "not as on the host" not in it.run("status").stdout


def test_one_whose_check_fails_goes_back(it):
    install("2.0", answers=0)
    failed = it.json("refresh", "thing", status=1)["jails"][0]
    assert (failed["outcome"], failed["from"], failed["to"]) == ("rolled_back", 1, 2)
    assert "its output lacks 'thing'" in failed["why"] and failed["then"] == "generation 1 serves again"
    it.serves("1.0", 1)


def test_one_without_a_check_has_to_stay_up(it):
    it.write(asks="")
    it.run("build", "thing")
    it.run("restart", "thing")
    install("2.0", lives=1)
    failed = it.run("refresh", "thing", status=1).stderr
    assert "generation 3 does not serve: killed by SIGALRM" in failed
    it.serves("1.0", 2)


def test_one_that_does_not_accept_its_configuration_is_not_restarted(it):
    it.write(more='check_config = ["/usr/bin/jail-thing", "check"]')
    it.run("build", "thing")
    it.run("restart", "thing")
    pid = it.serves("1.0", 2)
    install("2.0", accepts=0)
    failed = it.run("refresh", "thing", status=1).stderr
    assert "its configuration is not accepted" in failed and "thing.conf:1: no such word in 2.0" in failed
    assert "generation 2 serves on" in failed
    assert it.serves("1.0", 2) == pid


def test_what_does_not_run_is_built_and_not_started(it):
    it.run("stop", "thing")
    install("1.1")
    assert it.run("refresh", "thing").stdout.endswith("thing: generation 2, was 1; it does not run\n")
    assert it.status("thing")["state"] == "stopped"
    it.stop_jaild()
    install("1.2")
    assert "jaild is not running, nothing was restarted" in it.run("refresh", "thing").stdout


def test_a_build_that_fails_leaves_all_as_it_is_and_others_are_done(it):
    it.manifest("other", "version = 1\n[tree]\nbinaries = ['/usr/bin/jail-thing']\nusers = ['nobody']\n[service]\ncommand = ['/usr/bin/jail-thing']\nuser = 'nobody'\n")
    it.run("build", "other")
    it.manifest("other", "version = 2\n")
    pid = it.serves("1.0", 1)
    install("1.1")
    assert "version 2" in it.run("refresh", "other", "thing", status=65).stderr
    it.serves("1.1", 2)
    pid = it.serves("1.1", 2)
    DAEMON.unlink()
    assert "/usr/bin/jail-thing" in it.run("refresh", "thing", status=65).stderr
    assert it.serves("1.1", 2) == pid
    it.run("stale", "--mark", status=65)
    assert "it cannot be built any more" in it.run("status").stdout
    install("1.1")
    it.run("stale", "--mark", "thing")
    assert "cannot be built" not in it.run("status", "thing").stdout


def begin(it, *words):
    return subprocess.Popen(it.command("refresh", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_between_build_and_check_it_is_finished_by_the_next(it):
    it.write(asks=check(1))
    it.run("build", "thing")
    it.run("restart", "thing")
    install("1.1")
    first = begin(it, "thing")
    wait_for(lambda: it.status("thing")["generation"] == 3 and it.status("thing")["state"] == "ready", what="the new one")
    first.kill()
    first.wait()
    assert it.current() == 3
    assert "a refresh from generation 2 on was interrupted" in it.run("status").stdout
    pid = it.serves("1.1", 3)
    assert "thing: generation 3 serves, was 2\n" in it.run("refresh", "thing").stdout
    assert it.serves("1.1", 3) == pid  # asked, and not restarted
    assert "interrupted" not in it.run("status").stdout
    # The same with one that does not serve: the next one goes back.
    install("2.0", answers=0)
    first = begin(it, "thing")
    wait_for(lambda: it.status("thing")["generation"] == 4 and it.status("thing")["state"] == "ready", what="the new one")
    first.kill()
    first.wait()
    assert it.current() == 4
    assert "generation 3 serves again" in it.run("refresh", "thing", status=1).stderr
    it.serves("1.1", 3)


def test_interrupted_it_goes_back(it):
    install("1.1", starts=2)
    first = begin(it, "thing")
    wait_for(lambda: it.status("thing")["state"] == "starting" and it.current() == 2, what="the restart")
    second = it.run("refresh", "thing", status=75)
    assert "another command refreshes this jail" in second.stderr
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=20)
    assert first.returncode == 130 and "interrupted" in said and "generation 1 serves again" in said
    it.serves("1.0", 1)
    # It has not failed: what was made of it is gone.
    assert it.generations() == [1]


def test_jaild_may_be_killed_meanwhile(it):
    it.write(asks=check(1))
    it.run("build", "thing")
    it.run("restart", "thing")
    install("1.1", starts=2)
    first = begin(it, "thing")
    wait_for(lambda: it.status("thing")["state"] == "starting" and it.current() == 3, what="the restart")
    send(it.supervisors()["jaild_pid"], signal.SIGKILL)
    out, err = first.communicate(timeout=30)
    assert first.returncode == 0, out + err
    it.serves("1.1", 3)


def test_automatic_does_what_the_policy_allows_and_nothing_twice(it):
    install("1.1")
    pid = it.serves("1.0", 1)
    assert it.run("refresh", "--automatic").stdout == ""
    assert it.serves("1.0", 1) == pid
    it.drop_in("thing", AUTOMATIC)
    assert "its manifest has been edited since the build" in it.run("refresh", "--automatic", status=1).stderr
    it.run("build", "thing")
    assert it.run("refresh", "--automatic").stdout == ""  # it is not stale: its restart is the admin's
    assert it.status("thing")["generation"] == 1
    it.run("restart", "thing")
    install("1.2")
    it.run("refresh", "--automatic")
    pid = it.serves("1.2", 3)
    install("2.0", starts=0)
    it.run("refresh", "--automatic", status=1)
    pid = it.serves("1.2", 3)
    assert "not tried again, for it has failed with these very files" in it.run("refresh", "--automatic", status=1).stderr
    assert it.serves("1.2", 3) == pid and it.generations()[0] == 4
    install("2.1")
    it.run("refresh", "--automatic")
    it.serves("2.1", 5)


def test_one_that_was_built_and_not_restarted_is_changed_over(it):
    install("1.1")
    it.run("build", "thing")
    it.run("ps", "--stale", status=1)
    it.run("refresh", "thing")
    it.serves("1.1", 2)


def test_the_notes_are_roots_alone(it):
    jail = it.home / "state/jails/thing"
    install("1.1")
    it.run("stale", "--mark", status=1)
    assert (jail / "stale").stat().st_mode & 0o777 == 0o600 and jail.stat().st_mode & 0o777 == 0o700
    os.chown(jail, 65534, 65534)
    assert "not a safe place" in it.run("stale", "--mark", status=78).stderr
    assert "not a safe place" in it.run("refresh", "thing", status=78).stderr
    os.chown(jail, 0, 0)
    # A link in its place is not followed.
    victim = it.home / "victim"
    victim.write_text("mine\n")
    (jail / "stale").unlink()
    (jail / "stale").symlink_to(victim)
    it.run("stale", "--mark", status=1)
    assert victim.read_text() == "mine\n" and not (jail / "stale").is_symlink()
    it.run("stop", "thing")
    it.run("remove", "thing")
    assert not jail.exists()


def test_names_are_asked_for(it):
    assert "jail refresh --all" in it.run("refresh", status=64).stderr
    it.run("refresh", "--all", "thing", status=64)
    it.run("refresh", "nothing", status=66)
