"""Sockets that jaild opens and passes: to a small real service (Python, by sd_listen_fds(3)), for real clients."""

import os
import pathlib
import pwd
import signal
import socket
import stat
import subprocess
import threading
import time

import pytest

import jailtest
from jailtest import Instance, send, wait_for

PYTHON = "/usr/bin/python3.11"

# Answers each connection with the name of its socket, a number of this life and the uid; each datagram likewise. With an argument it
# first sleeps so many seconds, and closes what the second one names. Only what is compiled into the interpreter.
SERVICE = """
import _socket, posix, select, sys, time
env = posix.environ
assert int(env[b'LISTEN_PID']) == posix.getpid()
life = time.monotonic_ns()  # every pid is 2 in its jail
names = env[b'LISTEN_FDNAMES'].split(b':')
assert len(names) == int(env[b'LISTEN_FDS'])
sockets = {3 + i: (_socket.socket(fileno=3 + i), name) for i, name in enumerate(names)}
time.sleep(float(sys.argv[1]))
poll = select.poll()
for fd, (s, name) in list(sockets.items()):
    if name.decode() == sys.argv[2]:
        s.close()
    else:
        assert s.getblocking()
        s.setblocking(False)
        poll.register(fd, select.POLLIN)
if b'NOTIFY_SOCKET' in env:
    _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM).sendto(b'READY=1', env[b'NOTIFY_SOCKET'])
while True:
    for fd, event in poll.poll():
        s, name = sockets[fd]
        answer = b'%s %d %d' % (name, life, posix.getuid())
        try:
            if s.type & 15 == _socket.SOCK_DGRAM:
                data, peer = s.recvfrom(100)
                s.sendto(answer, peer)
            else:
                client = _socket.socket(fileno=s._accept()[0])
                client.send(answer)
                client.close()
        except OSError:
            pass
"""

MANIFEST = """
version = 1
[tree]
binaries = ["{python}"]
files = [
  {{ from = "/usr/lib/python3.11/encodings", to = "/usr/lib/python3.11/encodings" }},
  {{ to = "/service.py", text = '''{service}''' }},
]
users = ["nobody"]
[service]
command = ["{python}", "-I", "-S", "-B", "/service.py", "{delay}", "{closes}"]
user = "nobody"
ready = "listen"
ready_timeout = "20s"
restart.limit = "100/60s"
[sandbox]
syscalls = ["@default", "@network-server"]
network = "{network}"
limits.files = 1024
{more}
"""

SOCKETS = """
[[socket]]
name = "web"
listen = ["tcp:127.0.0.1:80", "tcp:[::1]:80"]
[[socket]]
name = "every"
listen = "tcp:81"
backlog = 7
[[socket]]
name = "datagrams"
listen = "udp:127.0.0.1:69"
[[socket]]
name = "local"
listen = "unix:{home}/sockets/local"
owner = "nobody"
mode = "0660"
"""


def write(it, more, delay="0.3", closes="-", network="none"):
    it.manifest("echod", MANIFEST.format(python=PYTHON, service=SERVICE, delay=delay, closes=closes, network=network, more=more))


def ask(address, family=socket.AF_INET, timeout=10.0):
    """What the service says to a connection; None where it is refused."""
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(timeout)
        try:
            s.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        return s.recv(100).decode()


def name_of(answer):
    return answer and answer.split()[0]


@pytest.fixture(scope="module")
def instance():
    with Instance() as it:
        write(it, SOCKETS.format(home=it.home))
        it.run("build", "echod")
        it.start_jaild()
        it.run("start", "echod")
        yield it


@pytest.fixture
def up(instance):
    wait_for(lambda: instance.status("echod")["state"] == "ready", 30, "echod is ready")
    return instance


class Load:
    """A client that connects every 20 ms, come what may, and waits for its answer."""

    def __enter__(self):
        self.answers, self.refused, self.lost, self.threads = [], 0, 0, []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def one(self):
        begin = time.monotonic()
        try:
            answer = ask(("127.0.0.1", 80), timeout=15)
        except OSError:
            self.lost += 1
            return
        if answer is None:
            self.refused += 1
        elif not answer:
            self.lost += 1
        else:
            self.answers.append((time.monotonic() - begin, answer))

    def run(self):
        while not self.stopping.wait(0.02):
            thread = threading.Thread(target=self.one)
            thread.start()
            self.threads.append(thread)

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()
        for thread in self.threads:
            thread.join()

    def report(self, what):
        longest = max(taken for taken, _ in self.answers)
        lives = {answer.split()[1] for _, answer in self.answers}
        print(f"{what}: {len(self.threads)} connections, {len(self.answers)} answered, {self.refused} refused, "
              f"{self.lost} lost; the longest wait {longest * 1000:.0f} ms")
        return lives


def test_low_ports_without_a_capability(up):
    pid = up.status("echod")["pid"]
    status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    nobody = pwd.getpwnam("nobody").pw_uid
    assert ask(("127.0.0.1", 80)).split()[0::2] == ["web", str(nobody)]
    assert name_of(ask(("::1", 80), socket.AF_INET6)) == "web"
    assert name_of(ask(("127.0.0.1", 81))) == "every"
    assert name_of(ask(("::1", 81), socket.AF_INET6)) == "every"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.sendto(b"?", ("127.0.0.1", 69))
        assert name_of(s.recv(100).decode()) == "datagrams"


def test_an_address_is_that_address_alone(up):
    assert ask(("127.0.0.2", 81)) is not None
    assert ask(("127.0.0.2", 80)) is None
    assert ask(("127.0.0.1", 82)) is None


def test_a_unix_socket_has_its_owner_and_mode(up):
    path = up.home / "sockets/local"
    status = path.stat()
    assert stat.S_ISSOCK(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o660
    assert status.st_uid == pwd.getpwnam("nobody").pw_uid
    assert path.parent.stat().st_uid == 0 and stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert name_of(ask(str(path), socket.AF_UNIX)) == "local"


def test_the_service_has_no_network_of_its_own(up):
    pid = up.status("echod")["pid"]
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")


def test_connections_during_restart_and_crash_are_answered(up):
    with Load() as load:
        time.sleep(0.2)
        up.run("restart", "echod")
        assert ask(("127.0.0.1", 81)), "the second life answers"
        send(up.status("echod")["pid"], signal.SIGKILL)
        time.sleep(0.2)
        wait_for(lambda: up.status("echod")["state"] == "ready", 20, "ready again")
        assert ask(("127.0.0.1", 81)), "and the third"
    lives = load.report("restart and SIGKILL of the service")
    assert (load.refused, load.lost) == (0, 0)
    assert len(lives) == 3, "three lives answered"


def test_connections_during_sigkill_of_jaild_are_answered(up):
    before = up.supervisors()["jaild_pid"]
    service = up.status("echod")["pid"]
    with Load() as load:
        for _ in range(3):
            jaild = up.supervisors()["jaild_pid"]
            send(jaild, signal.SIGKILL)
            wait_for(lambda old=jaild: up.supervisors().get("jaild_pid", old) not in (0, old), what="a new jaild")
        # And both at once: the sockets are with the keeper alone.
        jaild = up.supervisors()["jaild_pid"]
        send(jaild, signal.SIGKILL)
        send(service, signal.SIGKILL)
        wait_for(lambda: up.supervisors().get("jaild_pid", jaild) not in (0, jaild), what="a new jaild")
        wait_for(lambda: (s := up.status("echod"))["state"] == "ready" and s["pid"] != service, 20, "a new service")
        time.sleep(0.2)
    lives = load.report("SIGKILL of jaild three times, then of jaild and the service")
    assert up.supervisors()["jaild_pid"] != before
    assert (load.refused, load.lost) == (0, 0)
    assert len(lives) == 2


def test_a_datagram_sent_to_nobody_waits(up):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(20)
        send(up.status("echod")["pid"], signal.SIGKILL)
        wait_for(lambda: up.status("echod")["state"] != "ready", what="the end of the service")
        s.sendto(b"?", ("127.0.0.1", 69))
        assert name_of(s.recv(100).decode()) == "datagrams"


def backlog_of(port):
    line = subprocess.run(["ss", "-H", "-l", "-t", "-n", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    return int(line.split()[2])


def test_the_backlog_is_the_manifests(up):
    assert backlog_of(81) == 7
    up.drop_in("echod", '[[socket]]\nname = "every"\nbacklog = 9\n')
    before = listening_inodes()
    try:
        up.run("build", "echod")
        up.run("restart", "echod")
        assert backlog_of(81) == 9
        assert listening_inodes() == before, "the same socket"
    finally:
        (up.home / "manifests/echod.toml.d/50-test.toml").unlink()
        up.run("build", "echod")
        up.run("restart", "echod")


def test_a_stop_closes_them(up):
    path = up.home / "sockets/local"
    up.run("stop", "echod")
    assert ask(("127.0.0.1", 80)) is None
    assert ask(("127.0.0.1", 81)) is None
    assert not path.exists()
    up.run("start", "echod")
    assert name_of(ask(("127.0.0.1", 80))) == "web"
    assert path.exists()


def listening_inodes():
    lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:] + pathlib.Path("/proc/net/tcp6").read_text().splitlines()[1:]
    words = [line.split() for line in lines]
    return {int(w[1].rsplit(":", 1)[1], 16): w[9] for w in words if w[3] == "0A"}


def test_a_new_generation_keeps_what_it_has_in_common(up):
    before = listening_inodes()
    up.drop_in("echod", '[[socket]]\nname = "web"\nlisten = ["tcp:127.0.0.1:82", "tcp:[::1]:80"]\n')
    try:
        up.run("build", "echod")
        assert name_of(ask(("127.0.0.1", 80))) == "web", "a build alone changes nothing that runs"
        up.run("restart", "echod")
        assert ask(("127.0.0.1", 80)) is None
        assert name_of(ask(("127.0.0.1", 82))) == "web"
        assert name_of(ask(("::1", 80), socket.AF_INET6)) == "web"
        after = listening_inodes()
        assert after[81] == before[81] and 82 in after
    finally:
        (up.home / "manifests/echod.toml.d/50-test.toml").unlink()
        up.run("build", "echod")
        up.run("restart", "echod")
    assert name_of(ask(("127.0.0.1", 80))) == "web"
    assert ask(("127.0.0.1", 82)) is None


def test_a_taken_address_is_named_with_its_holder(up):
    up.run("stop", "echod")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 80))
        other.listen()
        done = up.run("start", "--no-wait", "echod")
        told = wait_for(lambda: (s := up.status("echod"))["state"] == "backoff" and s, what="backoff")
        shown = up.run("status", "echod", status=None).stdout
        print(told["reason"])
        for word in ("'web'", "'tcp:127.0.0.1:80'", "address in use", f"(pid {os.getpid()})", "sport = :80"):
            assert word in told["reason"], done.stderr
        assert "address in use" in shown
        assert ask(("127.0.0.1", 81)) is None, "nothing is half open"
    wait_for(lambda: up.status("echod")["state"] == "ready", 20, "it is free again")


def test_a_file_in_the_way_of_a_unix_socket(up):
    path = up.home / "sockets/local"
    up.run("stop", "echod")
    path.write_text("mine")
    try:
        up.run("start", "--no-wait", "echod")
        told = wait_for(lambda: (s := up.status("echod"))["state"] == "backoff" and s["reason"], what="backoff")
        assert str(path) in told and "is no socket" in told
        assert path.read_text() == "mine"
    finally:
        path.unlink()
    wait_for(lambda: up.status("echod")["state"] == "ready", 20, "the file is gone")
    # The file of a socket that nobody listens on is what a crash of the host leaves.
    up.run("stop", "echod")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    up.run("start", "echod")
    assert name_of(ask(str(path), socket.AF_UNIX)) == "local"


@pytest.mark.parametrize("trap", ["others' directory", "symbolic link"])
def test_a_hostile_path_is_refused(trap):
    with Instance() as it:
        folder = it.home / "trap"
        if trap == "symbolic link":
            folder.symlink_to(it.home)
        else:
            folder.mkdir()
            os.chown(folder, 65534, 65534)
        write(it, f'[[socket]]\nname = "local"\nlisten = "unix:{folder}/local"\n')
        it.run("build", "echod")
        it.start_jaild()
        it.run("start", "--no-wait", "echod")
        told = wait_for(lambda: it.status("echod")["reason"], what="a reason")
        assert str(folder) in told
        assert not (it.home / "local").exists() and not (folder / "local").exists()


def test_ready_listen_means_that_the_service_has_them():
    with Instance() as it:
        write(it, '[[socket]]\nname = "kept"\nlisten = "tcp:127.0.0.1:83"\n[[socket]]\nname = "dropped"\nlisten = "tcp:127.0.0.1:84"\n',
              closes="dropped")
        it.drop_in("echod", '[service]\nready = ["notify", "listen"]\n')
        it.run("build", "echod")
        it.start_jaild()
        it.run("start", "--no-wait", "echod")
        wait_for(lambda: "tcp:84" in it.status("echod")["reason"], what="what it waits for")
        assert "tcp:83" not in it.status("echod")["reason"]
        assert it.status("echod")["state"] == "starting"
        assert name_of(ask(("127.0.0.1", 83))) == "kept"
        # The same service when it keeps both.
        it.drop_in("echod", f'[service]\nready = ["notify", "listen"]\ncommand = ["{PYTHON}", "-I", "-S", "-B", "/service.py", "0", "-"]\n')
        it.run("build", "echod")
        it.run("restart", "echod")
        assert it.status("echod")["state"] == "ready"


def test_in_a_network_of_its_own():
    with Instance() as it:
        write(it, '[[socket]]\nname = "inside"\nlisten = "tcp:127.0.0.1:87"\n', network="private")
        code = "import socket; s = socket.create_connection(('127.0.0.1', 87), 5); print(s.recv(99).decode())"
        it.drop_in("echod", f'[service]\nready = ["listen", "check"]\n[check]\ncommand = ["{PYTHON}", "-c", "{code}"]\nexpect = "inside"\n')
        it.run("build", "echod")
        it.start_jaild()
        it.run("start", "echod")
        first = it.status("echod")
        assert first["check"] == "ok"
        assert ask(("127.0.0.1", 87)) is None, "not the host's"
        space = os.readlink(f"/proc/{first['pid']}/ns/net")
        assert space != os.readlink("/proc/self/ns/net")
        send(it.supervisors()["jaild_pid"], signal.SIGKILL)
        send(first["pid"], signal.SIGKILL)
        again = wait_for(
            lambda: it.run("status", status=None).returncode == 0 and (s := it.status("echod"))["pid"] not in (0, first["pid"]) and s["check"] == "ok" and s,
            20, "another life")
        assert os.readlink(f"/proc/{again['pid']}/ns/net") == space, "the sockets stay, and so does their namespace"


def test_in_a_named_network():
    with jailtest.own_mounts(), Instance() as it:
        subprocess.run(["ip", "netns", "add", "blue"], check=True)
        subprocess.run(["ip", "-n", "blue", "link", "set", "lo", "up"], check=True)
        write(it, '[[socket]]\nname = "inside"\nlisten = "tcp:127.0.0.1:88"\n', network="netns:blue")
        it.run("build", "echod")
        it.start_jaild()
        it.run("start", "echod")
        code = "import socket; print(socket.create_connection(('127.0.0.1', 88), 10).recv(99).decode())"
        command = ["nsenter", "--net=/run/netns/blue", PYTHON, "-c", code]
        assert name_of(subprocess.run(command, capture_output=True, text=True, check=True).stdout) == "inside"
        assert ask(("127.0.0.1", 88)) is None, "not the host's"
        it.stop_jaild()
        subprocess.run(["ip", "netns", "delete", "blue"], check=True)


def test_what_cannot_be_is_told_by_lint():
    with Instance() as it:
        write(it, """
[[socket]]
name = "a"
listen = "tcp:0"
[[socket]]
name = "b"
listen = ["tcp:localhost:80", "tcp:[1.2.3.4]:80", "udp:53", "udp:127.0.0.1:53"]
[[socket]]
name = "c"
listen = ["unix:run/x", "tcp:85"]
[[socket]]
name = "d"
listen = "tcp:86"
mode = "0666"
""")
        text = it.run("lint", "echod", status=65)
        lines = text.stdout + text.stderr
        for word in ("'tcp:0' has no port", "'tcp:localhost:80' has no numeric address", "'tcp:[1.2.3.4]:80'",
                     "'unix:run/x' has no absolute path", "socket.d.mode: is for unix sockets"):
            assert word in lines
        write(it, '[[socket]]\nname = "b"\nlisten = ["udp:53", "udp:127.0.0.1:53"]\n')
        assert "cannot both be bound" in it.run("lint", "echod", status=65).stdout
