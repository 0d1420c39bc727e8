"""What the end-to-end and integration tests share: an instance of jail in a temporary directory, its jaild, and DNS
questions asked over a plain socket. Every test process enters a network namespace of its own first."""

import contextlib
import ctypes
import json
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

BIN = pathlib.Path(os.environ.get("JAIL_BIN", pathlib.Path(__file__).parent.parent / "build/release/bin"))
REPO = pathlib.Path(__file__).resolve().parent.parent

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000


def own_network():
    """Moves this process (and so all that it starts) into a new network namespace with its loopback up."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


@contextlib.contextmanager
def own_mounts(users=()):
    """Moves this process into a mount namespace of its own, in which /run/netns is empty (so that `ip netns add` leaves no
    trace on the machine) and /etc/passwd and /etc/group have `users` besides, as useradd --system would make them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
    mount = lambda *words: subprocess.run(["mount", *map(str, words)], check=True)
    mount("--make-rprivate", "/")
    made = pathlib.Path(tempfile.mkdtemp(prefix="jail-mounts."))
    netns = pathlib.Path("/run/netns")
    if not netns.is_dir():
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        netns.mkdir(mode=0o755)
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", netns)
    try:
        for file, line in (("passwd", "{0}:x:{1}:{1}::/nonexistent:/usr/sbin/nologin"), ("group", "{0}:x:{1}:")):
            old = pathlib.Path("/etc", file).read_text()
            there = {entry.split(":")[0] for entry in old.splitlines()}
            wanted = [(user, 64000 + number) for number, user in enumerate(users) if user not in there]
            copy = made / file
            copy.write_text(old + "".join(line.format(*entry) + "\n" for entry in wanted))
            copy.chmod(0o644)
            mount("--bind", copy, f"/etc/{file}")
        yield
    finally:
        for file in ("passwd", "group"):
            subprocess.run(["umount", f"/etc/{file}"], capture_output=True)
        shutil.rmtree(made)


def send(pid, number):
    """kill(2) to one process, never to a group or to all: 0 and -1 mean those."""
    assert pid > 1, f"not the pid of one process: {pid}"
    os.kill(pid, number)


def wait_for(condition, seconds=10.0, what="the condition"):
    """Polls `condition` until it is true; returns its value, or fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.01)


def least_manifest(binary, user="nobody"):
    """The text of a manifest without anything that it can do without."""
    return f'''version = 1
[tree]
binaries = ["{binary}"]
users = ["{user}"]
[service]
command = ["{binary}"]
user = "{user}"
'''


class Instance:
    """`jail` and `jaild` with everything below one temporary directory. A context manager: leaving it stops jaild."""

    def __init__(self, manifests=REPO / "manifests"):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="jail-test."))
        self.home.chmod(0o755)
        self.manifests = manifests
        self.keeper = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.stop_jaild()
        finally:
            shutil.rmtree(self.home, ignore_errors=True)

    def command(self, *words):
        return [str(BIN / "jail"), "--home", str(self.home), "--manifests", str(self.manifests), *map(str, words)]

    def run(self, *words, status=0, timeout=60):
        """Runs `jail WORDS`, demands the exit status, returns the completed process (text)."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=timeout)
        if status is not None:
            assert done.returncode == status, (
                f"jail {' '.join(map(str, words))}: exit {done.returncode}, expected {status}\n{done.stdout}{done.stderr}"
            )
        return done

    def json(self, *words, status=0):
        return json.loads(self.run(*words, "--json", status=status).stdout)

    def drop_in(self, name, text, file="50-test.toml"):
        """A drop-in for the manifest `name`, in this instance only."""
        folder = self.home / "manifests" / f"{name}.toml.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)

    def init(self, name, *words):
        """Lays the example of `name` out by `jail init`; returns the directory that the admin then edits."""
        self.run("init", name, *words)
        return self.home / "config" / name

    def manifest(self, name, text):
        folder = self.home / "manifests"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.toml"
        path.write_text(text)
        return path

    def start_jaild(self, prefix=(), **popen):
        """Starts jaild, by the command `prefix` that executes its arguments where one is given."""
        self.jaild_err = open(self.home / "jaild.err", "ab")
        self.keeper = subprocess.Popen(
            [*prefix, str(BIN / "jaild"), "--home", str(self.home)], stdin=subprocess.DEVNULL, stderr=self.jaild_err, **popen
        )
        wait_for(lambda: self.run("status", status=None).returncode != 69, what="jaild's control socket")

    def stop_jaild(self):
        if self.keeper is None:
            return
        if self.keeper.poll() is None:
            self.keeper.send_signal(signal.SIGTERM)
            try:
                self.keeper.wait(20)
            except subprocess.TimeoutExpired:
                self.keeper.kill()
                self.keeper.wait()
                raise
        else:
            self.stop_heir()
        self.keeper = None

    def stop_heir(self):
        """The keeper was killed, and jaild made another: nobody's child here."""
        answer = self.run("status", "--json", status=None)
        if answer.returncode == 69:
            return
        heir = json.loads(answer.stdout)["keeper_pid"]
        pidfd = os.pidfd_open(heir)
        try:
            send(heir, signal.SIGTERM)
            assert select.select([pidfd], [], [], 20)[0], f"the keeper {heir} does not end"
        finally:
            os.close(pidfd)

    def status(self, name):
        """The status of one service, as `jail status --json` has it."""
        answer = json.loads(self.run("status", name, "--json", status=None).stdout)
        return next(service for service in answer["services"] if service["name"] == name)

    def supervisors(self):
        """{'jaild_pid': ..., 'keeper_pid': ..., 'relay_pid': ...}"""
        return json.loads(self.run("status", "--json", status=None).stdout)

    def tree(self, name):
        return self.home / "state/jails" / name / "current" / "tree"


def dns_question(name, qtype=1, rd=False, ident=None):
    """(id, packet) of one question."""
    ident = random.randrange(65536) if ident is None else ident
    question = b"".join(bytes([len(part)]) + part.encode() for part in name.rstrip(".").split(".")) + b"\0"
    header = struct.pack("!HHHHHH", ident, 0x0100 if rd else 0, 1, 0, 0, 0)
    return ident, header + question + struct.pack("!HH", qtype, 1)


def dns_answer(packet):
    """(id, rcode, authoritative, number of answers)"""
    ident, flags, _, answers, _, _ = struct.unpack("!HHHHHH", packet[:12])
    return ident, flags & 15, bool(flags & 0x0400), answers


def dns_query(name, qtype=1, server=("127.0.0.1", 53), timeout=1.0, rd=False):
    """Asks one question over UDP. Returns (rcode, authoritative, number of answers), or None when none came."""
    ident, packet = dns_question(name, qtype, rd)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(timeout)
        try:
            s.connect(server)
            s.send(packet)
            reply = dns_answer(s.recv(4096))
        except OSError:
            return None
    return reply[1:] if reply[0] == ident else None
