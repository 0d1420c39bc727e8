"""What a daemon inherits through jaild: descriptors 0 to 2, whatever jaild itself was started with."""
import os
import socket

from jailtest import BIN, Instance, wait_for

MANIFEST = """
version = 1
[tree]
binaries = ["{probe}"]
users = ["nobody"]
[service]
command = ["{probe}", "fds", "environment"]
user = "nobody"
restart = {{ on = "never" }}
"""


def all_kinds(count):
    """`count` inheritable descriptors: files, directories, sockets, pipes, memfds."""
    made = []
    while len(made) < count:
        made.append(os.open("/etc/passwd", os.O_RDONLY))
        made.append(os.open("/", os.O_RDONLY | os.O_DIRECTORY))
        made.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach())
        made.extend(os.pipe())
        made.append(os.memfd_create("left open"))
    for fd in made:
        os.set_inheritable(fd, True)
    return made


def test_jaild_with_200_open_descriptors_passes_on_none():
    made = all_kinds(200)
    try:
        with Instance() as it:
            it.manifest("probe", MANIFEST.format(probe=BIN / "probe"))
            it.run("build", "probe")
            count = it.home / "inherited"
            it.start_jaild(["sh", "-c", f'ls /proc/self/fd | wc -l > {count}; exec "$@"', "sh"], pass_fds=made)
            assert int(count.read_text()) >= 200, "jaild must have been given them, or this proves nothing"
            it.run("start", "probe", status=None)
            wait_for(lambda: "probe stdout: environment" in it.run("logs", "probe").stdout, what="the probe's answers")
            lines = [line.split(" stdout: ", 1)[1] for line in it.run("logs", "probe").stdout.splitlines()]
            assert lines[0] == "fds 0 1 2"
    finally:
        for fd in made:
            os.close(fd)
