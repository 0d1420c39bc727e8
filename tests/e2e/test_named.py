"""BIND 9 in its jail, from the manifest that we ship, against real queries: built, verified, served, killed, logged."""

import ctypes
import os
import pathlib
import select
import signal
import socket
import stat
import subprocess
import syslog
import threading
import time

import pytest

from jailtest import Instance, dns_answer, dns_query, dns_question, send, wait_for

SERVES = {"named": "plain questions over UDP"}

NOERROR, REFUSED = 0, 5
CLONE_NEWNS = 0x00020000


@pytest.fixture(scope="module")
def instance():
    with Instance() as it:
        it.config = it.init("named")
        it.run("build", "named")
        it.start_jaild()
        it.run("start", "named")
        yield it


def answers():
    return dns_query("www.example.test") == (NOERROR, True, 1)


def proc_status(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.split() for key, value in (line.split(":", 1) for line in lines)}


class Load:
    """A client that asks every 10 ms, come what may. `failed` are the times of questions that no answer came to within a
    second; `answered` the times at which answers came."""

    INTERVAL, PATIENCE = 0.01, 1.0

    def __enter__(self):
        self.asked = 0
        self.answered = []
        self.failed = []
        self.open = {}
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def run(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            due = time.monotonic()
            while not self.stopping.is_set():
                ident, packet = dns_question("www.example.test", ident=self.asked & 0xFFFF)
                self.open[ident] = time.monotonic()
                self.asked += 1
                s.sendto(packet, ("127.0.0.1", 53))
                due += self.INTERVAL
                self.listen(s, due)
            self.listen(s, time.monotonic() + self.PATIENCE)
        self.failed = sorted(self.open.values())

    def listen(self, s, until):
        while (left := until - time.monotonic()) > 0 and (self.open or not self.stopping.is_set()):
            if not select.select([s], [], [], left)[0]:
                return
            ident, *answer = dns_answer(s.recv(4096))
            if tuple(answer) == (NOERROR, True, 1) and time.monotonic() - self.open.get(ident, 0) < self.PATIENCE:
                del self.open[ident]
                self.answered.append(time.monotonic())

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()


def test_answers_with_authority_and_keeps_its_zone(instance):
    assert answers()
    assert dns_query("example.org", rd=False)[0] == REFUSED or not dns_query("example.org", rd=False)[1]
    dig = subprocess.run(["dig", "@127.0.0.1", "example.test", "AXFR"], capture_output=True, text=True)
    assert "Transfer failed" in dig.stdout
    version = subprocess.run(
        ["dig", "+short", "@127.0.0.1", "version.bind", "CH", "TXT"], capture_output=True, text=True
    )
    assert "9." not in version.stdout


def test_host_recursion_is_local_only(instance):
    config = (instance.config / "named.conf").read_text()
    assert "allow-recursion" in config and "any" not in config.split("allow-recursion", 1)[1].split("}", 1)[0]


def test_privileges_are_exactly_the_manifests(instance):
    pid = instance.status("named")["pid"]
    found = proc_status(pid)
    account = next(
        line.split(":") for line in pathlib.Path("/etc/passwd").read_text().splitlines() if line.startswith("bind:")
    )
    assert found["Uid"] == [account[2]] * 4
    assert found["Gid"] == [account[3]] * 4
    assert found["Groups"] == [] or found["Groups"] == [account[3]]
    only = f"{1 << 10:016x}"  # CAP_NET_BIND_SERVICE
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert found[name] == [only], name
    assert found["NoNewPrivs"] == ["1"]
    assert found["Seccomp"] == ["2"]


def test_the_root_holds_what_the_lock_lists(instance):
    pid = instance.status("named")["pid"]
    lock = instance.json("lock", "named")
    listed = {entry["path"] for entry in lock["entries"]}
    root = pathlib.Path(f"/proc/{pid}/root")
    mounts = {line.split()[4] for line in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()} - {"/"}
    extra = []
    for folder, folders, files in os.walk(str(root) + "/"):
        inside = "/" + os.path.relpath(folder, root) if folder != str(root) + "/" else "/"
        folders[:] = [d for d in folders if os.path.join(inside, d) not in mounts]
        for name in folders + files:
            path = os.path.join(inside, name)
            if path not in listed and path not in mounts:
                extra.append(path)
    assert extra == []
    assert {"/dev", "/proc", "/tmp", "/etc/bind", "/var/cache/bind"} <= mounts


def test_the_tree_cannot_be_written(instance):
    pid = instance.status("named")["pid"]
    with pytest.raises(OSError):
        open(f"/proc/{pid}/root/etc/new", "w")
    flags = {
        line.split()[4]: set(line.split()[5].split(","))
        for line in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    }
    assert {"ro", "nosuid", "nodev"} <= flags["/"]
    assert {"ro", "nosuid", "nodev", "noexec"} <= flags["/etc/bind"]
    assert {"rw", "nosuid", "nodev", "noexec"} <= flags["/var/cache/bind"]


def test_logs_are_relayed_and_stamped(instance):
    lines = instance.run("logs", "named", "-n", "all").stdout.splitlines()
    running = [line for line in lines if line.endswith(": running")]
    assert running, "\n".join(lines[-20:])
    assert f"named[{instance.status('named')['pid']}]" in running[-1]


def test_killed_under_load_it_is_back_within_300_ms(instance):
    before = instance.status("named")
    with Load() as load:
        time.sleep(0.3)
        send(before["pid"], signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: load.answered[-1] > killed, 5, "an answer after SIGKILL")
        time.sleep(0.3)
    gap = next(at for at in load.answered if at > killed) - killed
    print(f"SIGKILL of named: {len(load.failed)} of {load.asked} queries failed, back after {gap * 1000:.0f} ms")
    after = wait_for(
        lambda: (s := instance.status("named"))["state"] == "ready" and s, what="named ready after SIGKILL"
    )
    assert gap < 0.3
    assert after["restarts"] == before["restarts"] + 1
    assert "SIGKILL" in after["reason"]
    assert after["pid"] != before["pid"]


def test_a_second_crash_at_once_backs_off(instance):
    first = wait_for(lambda: (s := instance.status("named"))["state"] == "ready" and s)
    send(first["pid"], signal.SIGKILL)
    second = wait_for(lambda: (s := instance.status("named"))["pid"] not in (0, first["pid"]) and s)
    send(second["pid"], signal.SIGKILL)
    waiting = wait_for(lambda: (s := instance.status("named"))["state"] == "backoff" and s)
    assert waiting["next_start_ms"] > 100, "the delay must have grown"
    shown = instance.run("status", "named", status=None).stdout
    wait_for(lambda: instance.status("named")["state"] == "ready")
    assert "backoff" in shown


def test_jaild_killed_twenty_times_under_load_nothing_fails(instance):
    wait_for(lambda: instance.status("named")["state"] == "ready")
    pid = instance.status("named")["pid"]
    with Load() as load:
        for _ in range(20):
            jaild = instance.supervisors()["jaild_pid"]
            send(jaild, signal.SIGKILL)
            wait_for(lambda old=jaild: instance.supervisors().get("jaild_pid", old) not in (0, old), what="a new jaild")
            assert instance.status("named")["pid"] == pid
    print(f"SIGKILL of jaild, 20 times: {len(load.failed)} of {load.asked} queries failed")
    assert load.failed == []
    assert load.asked > 20
    assert instance.status("named")["state"] == "ready"
    alive = subprocess.run(["pgrep", "-x", "named", "--ns", str(os.getpid()), "--nslist", "net"], capture_output=True)
    assert alive.stdout.split() == [str(pid).encode()], "exactly one named"


def test_keeper_killed_is_made_anew(instance):
    before = instance.supervisors()
    pid = instance.status("named")["pid"]
    send(before["keeper_pid"], signal.SIGKILL)
    instance.keeper.wait()
    after = wait_for(
        lambda: (s := instance.supervisors()).get("keeper_pid") not in (None, 0, before["keeper_pid"]) and s,
        what="a new keeper",
    )
    assert instance.status("named")["pid"] == pid
    send(after["jaild_pid"], signal.SIGKILL)
    wait_for(lambda: instance.supervisors().get("jaild_pid") not in (None, 0, after["jaild_pid"]), what="a new jaild")
    assert instance.status("named")["pid"] == pid
    assert answers()
    # The process that we started is gone; from now on the new keeper is the one to stop.
    instance.keeper = Adopted(instance.supervisors()["keeper_pid"])


class Adopted:
    """Enough of Popen for a keeper that is not our child."""

    def __init__(self, pid):
        self.pidfd = os.pidfd_open(pid)

    def poll(self):
        return 0 if select.select([self.pidfd], [], [], 0)[0] else None

    def send_signal(self, number):
        signal.pidfd_send_signal(self.pidfd, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def wait(self, seconds=None):
        if not select.select([self.pidfd], [], [], seconds)[0]:
            raise subprocess.TimeoutExpired("keeper", seconds)


def flood_from_inside(pid, count):
    """A child process that enters the mount namespace of `pid` and makes `count` real syslog() calls there."""
    child = os.fork()
    if child:
        return child
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
        if libc.setns(fd, CLONE_NEWNS) != 0:
            os._exit(3)
        syslog.openlog("flood", 0, syslog.LOG_DAEMON)
        for number in range(count):
            syslog.syslog(syslog.LOG_INFO, f"message {number}")
        os._exit(0)
    except BaseException:
        os._exit(4)


def test_a_stopped_relay_stops_nobody(instance):
    wait_for(lambda: instance.status("named")["state"] == "ready")
    pid = instance.status("named")["pid"]
    relay = instance.supervisors()["relay_pid"]
    with Load() as load:
        send(relay, signal.SIGSTOP)
        begin = time.monotonic()
        child = flood_from_inside(pid, 100_000)
        _, code = os.waitpid(child, 0)
        took = time.monotonic() - begin
    print(f"SIGSTOP of the relay, 100,000 syslog() calls in {took:.2f} s; {len(load.failed)} of {load.asked} queries failed")
    assert os.waitstatus_to_exitcode(code) == 0
    assert load.failed == []
    assert instance.supervisors()["relay_pid"] != relay
    begin = time.monotonic()
    instance.run("stop", "named")
    stopped = time.monotonic() - begin
    assert stopped < 5, "named must obey TERM"
    log = (instance.home / "log/named.log").read_text()
    assert "exiting" in log
    wait_for(lambda: "message 99999" in (instance.home / "log/named.log").read_text(), 20, "the last message")
    instance.run("start", "named")


def test_a_stop_leaves_nothing_behind(instance):
    pid = instance.status("named")["pid"]
    instance.run("stop", "named")
    assert not pathlib.Path(f"/proc/{pid}").exists()
    assert instance.status("named")["state"] == "stopped"
    assert dns_query("www.example.test", timeout=0.2) is None
    instance.run("start", "named")
    assert answers()


def test_reload_sees_the_admins_edit(instance):
    zone = next(p for p in instance.config.rglob("*") if p.is_file() and "192.0.2.80" in p.read_text())
    text = zone.read_text()
    assert dns_query("added.example.test")[0] == 3
    serial = next(word for word in text.split() if word.isdigit() and len(word) >= 8)
    zone.write_text(text.replace(serial, str(int(serial) + 1), 1) + "\nadded IN A 192.0.2.99\n")
    instance.run("reload", "named")
    wait_for(lambda: dns_query("added.example.test") == (NOERROR, True, 1), what="the added name")


def test_rebuild_is_a_no_op_and_verify_is_exact(instance):
    state = instance.home / "state/jails/named"
    lock = (state / "current/jail.lock").read_bytes()

    def fingerprint():
        seen = {}
        for folder, folders, files in os.walk(state):
            for name in folders + files:
                info = os.lstat(os.path.join(folder, name))
                seen[os.path.join(folder, name)] = (info.st_ino, info.st_mtime_ns, info.st_ctime_ns)
        return seen

    time.sleep(0.02)
    assert "up to date" in instance.run("build", "named").stdout  # and leaves a witness
    before = fingerprint()
    assert "up to date" in instance.run("build", "named").stdout
    assert fingerprint() == before
    assert (state / "current/jail.lock").read_bytes() == lock
    instance.run("verify", "named")
    second = instance.run("build", "named", "--force")
    assert "generation 2" in second.stdout
    assert (state / "current/jail.lock").read_bytes() == lock


@pytest.mark.parametrize("what", ["byte", "mode", "owner", "target", "added", "missing"])
def test_verify_names_each_difference(what):
    with Instance() as it:
        it.run("build", "named")
        tree = it.tree("named")
        binary, link = tree / "usr/sbin/named", tree / "lib"
        assert stat.S_ISLNK(os.lstat(link).st_mode)
        if what == "byte":
            with open(binary, "r+b") as file:
                file.seek(4096)
                byte = file.read(1)
                file.seek(4096)
                file.write(bytes([byte[0] ^ 1]))
            path = "/usr/sbin/named"
        elif what == "mode":
            binary.chmod(0o777)
            path = "/usr/sbin/named"
        elif what == "owner":
            os.chown(binary, 1, 1)
            path = "/usr/sbin/named"
        elif what == "target":
            link.unlink()
            link.symlink_to("usr/share")
            path = "/lib"
        elif what == "added":
            (tree / "etc/extra").write_text("x")
            path = "/etc/extra"
        else:
            (tree / "etc/passwd").unlink()
            path = "/etc/passwd"
        done = it.run("verify", "named", status=1)
        lines = [line for line in done.stdout.splitlines() if line.startswith(path + ":")]
        assert lines, done.stdout
        print(lines[0])
        # A rebuild heals it.
        it.run("build", "named")
        it.run("verify", "named")
