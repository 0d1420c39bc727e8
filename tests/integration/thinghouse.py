"""A jail whose daemon is made here, in versions that work and versions that do not: for the tests of jail refresh."""

import os
import pathlib
import socket
import subprocess

import pytest

from jailtest import Instance, own_network
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


@pytest.fixture(scope="module", autouse=True)
def network():
    own_network()


@pytest.fixture
def it():
    """The first version, built and served, on layers of this process alone."""
    with layered(), House() as house:
        install("1.0")
        house.write()
        house.run("build", "thing")
        house.start_jaild()
        house.run("start", "thing")
        yield house
