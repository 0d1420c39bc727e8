"""`jail exec`: commands of the tree, confined as the daemon is; commands of the host, which see the jail's files."""

import contextlib
import fcntl
import os
import pathlib
import pty
import select
import signal
import stat
import struct
import subprocess
import termios
import time

import pytest

from jailtest import Instance, own_network, wait_for

NAME = "house"
# The shell is there so that the tests can ask questions from within; no jail of ours has one.
MANIFEST = """
version = 1
[tree]
binaries = ["/bin/sh", "/bin/cat", "/bin/sleep", "/bin/stty", "/usr/bin/env"]
users = ["mail"]
[[config]]
from = "{home}/etc-house"
to = "/etc/house"
[[volume]]
name = "house-run"
path = "/run/house"
owner = "mail"
mode = "0755"
[[volume]]
name = "house-data"
path = "/srv/house-of-a-test/deep/data"
owner = "mail"
mode = "0755"
[service]
command = ["/bin/sh", "-c", "echo $$ > /run/house/pid; exec sleep 1000"]
user = "mail"
umask = "0027"
environment = {{ COLOUR = "green" }}
[sandbox]
capabilities = ["net_bind_service"]
syscalls = ["@default", "@file-write", "@process", "fchown"]
limits = {{ files = 77 }}
network = "private"
"""


@pytest.fixture(scope="module")
def it():
    own_network()
    with Instance() as instance:
        (instance.home / "etc-house").mkdir()
        (instance.home / "etc-house/key").write_text("secret\n")
        instance.manifest(NAME, MANIFEST.format(home=instance.home))
        instance.run("build", NAME)
        instance.start_jaild()
        instance.run("start", NAME)
        wait_for((instance.home / "state/volumes/house-run/pid").exists, 5, "the daemon")
        yield instance


def run(it, *command, options=(), status=0, **popen):
    done = subprocess.run(it.command("exec", *options, NAME, "--", *command), capture_output=True, text=True, timeout=20,
                          **{"stdin": subprocess.DEVNULL, **popen})
    if status is not None:
        assert done.returncode == status, done.stdout + done.stderr
    return done


def facts(text):
    return {key: value.split() for key, value in (line.split(":", 1) for line in text.splitlines() if ":" in line)}


@contextlib.contextmanager
def lasting(it, *command, options=()):
    """A command that goes on; gives its process, and the pid of the command itself, as the host sees it."""
    exec_ = subprocess.Popen(it.command("exec", *options, NAME, "--", *command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        children = lambda: pathlib.Path(f"/proc/{exec_.pid}/task/{exec_.pid}/children").read_text().split()
        pid = int(wait_for(children, 5, "the command")[0])
        wait_for(lambda: pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == pathlib.Path(command[0]).name, 5, "its exec")
        yield exec_, pid
    finally:
        exec_.kill()
        exec_.wait()


def gone(pid):
    return not pathlib.Path(f"/proc/{pid}").exists()


# ---- of the tree


def test_a_command_of_the_tree_is_confined_as_the_daemon_is(it):
    daemon = it.status(NAME)["pid"]
    with lasting(it, "sleep", "100") as (_, pid):
        ours, its = (facts(pathlib.Path(f"/proc/{p}/status").read_text()) for p in (pid, daemon))
        for key in ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
                    "Seccomp_filters", "Umask", "SigBlk", "SigIgn", "SigCgt"):
            assert ours.get(key) == its.get(key), key
        assert ours["CapEff"] == [f"{1 << 10:016x}"] and ours["Seccomp"] == ["2"]
        for space in ("mnt", "pid", "ipc", "uts", "cgroup", "net"):
            assert os.readlink(f"/proc/{pid}/ns/{space}") == os.readlink(f"/proc/{daemon}/ns/{space}"), space
        root = lambda p: (lambda s: (s.st_dev, s.st_ino))(os.stat(f"/proc/{p}/root"))
        assert root(pid) == root(daemon)
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert os.getsid(pid) == pid != os.getsid(0)
        cgroup = lambda p: [line for line in pathlib.Path(f"/proc/{p}/cgroup").read_text().splitlines() if line.startswith("0::")]
        assert cgroup(pid) == cgroup(daemon)
        limit = lambda p: [line.split()[3:5] for line in pathlib.Path(f"/proc/{p}/limits").read_text().splitlines() if "open files" in line]
        assert limit(pid) == limit(daemon) == [["77", "77"]]
        links = {name: os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
        assert set(links) == {"0", "1", "2"}, links


def test_nothing_of_the_caller_goes_with_it(it):
    leak = os.open("/etc", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        done = run(it, "env", env={**os.environ, "LD_PRELOAD": "/tmp/x.so", "SECRET": "1", "NOTIFY_SOCKET": "/x"}, close_fds=False)
        with lasting(it, "sleep", "100") as (_, pid):
            assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
    finally:
        os.close(leak)
    variables = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert variables["COLOUR"] == "green" and variables["USER"] == "mail"
    assert set(variables) <= {"COLOUR", "USER", "LOGNAME", "HOME", "PATH", "PWD"}, variables


def test_its_input_output_and_status_are_its_own(it):
    done = run(it, "sh", "-c", "cat; echo bad >&2; exit 7", input="through\n", stdin=None, status=7)
    assert (done.stdout, done.stderr) == ("through\n", "bad\n")
    assert run(it, "sh", "-c", 'printf "%s|" "$@"', "x", "[a,b]", "--", "-v", "--json", "").stdout == "[a,b]|--|-v|--json||"
    assert run(it, "sh", "-c", "kill -KILL $$", status=137).stdout == ""
    assert "neither in its tree nor on the host" in run(it, "no-such-program", status=127).stderr
    assert "not in its tree" in run(it, "ls", options=["--tree"], status=127).stderr
    assert "not on the host" in run(it, "no-such-program", options=["--host"], status=127).stderr


def test_a_signal_is_handed_on(it):
    with lasting(it, "sleep", "100") as (exec_, pid):
        exec_.send_signal(signal.SIGTERM)
        assert exec_.wait(5) == 128 + signal.SIGTERM
        assert gone(pid)


@pytest.mark.parametrize("options", [[], ["--host"]])
def test_it_does_not_outlive_jail_exec(it, options):
    with lasting(it, "sleep", "100", options=options) as (exec_, pid):
        exec_.kill()
        exec_.wait()
        wait_for(lambda: gone(pid), 5, "the end of the command")


def test_a_directory_is_not_handed_in(it):
    fd = os.open("/etc", os.O_RDONLY)
    try:
        done = run(it, "cat", stdin=fd, status=125)
    finally:
        os.close(fd)
    assert "a directory" in done.stderr


def test_closed_descriptors_are_no_trouble(it):
    done = subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *it.command("exec", NAME, "--", "sh", "-c", "exit 4")], timeout=20)
    assert done.returncode == 4


@pytest.mark.parametrize("call", ["pidfd_open", "setns", "clone3", "setsid", "fchdir", "chroot", "keyctl", "close_range", "dup3",
                                  "setpriority", "prlimit64", "setgroups", "setresgid", "setresuid", "capset", "seccomp"])
def test_without_a_step_of_the_set_up_nothing_runs(it, call):
    """Each call of it fails, one call at a time."""
    ran = it.home / "state/volumes/house-run/ran"
    script = ["sh", "-c", "echo > /run/house/ran"]
    command = it.command("exec", NAME, "--", *script)
    run(it, *script)
    ran.unlink()  # that it would be there
    done = subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:error=EPERM", *command],
                          capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    assert done.returncode == 125 and "Operation not permitted" in done.stderr, done.stderr
    assert not ran.exists()


# ---- terminals


class Tty:
    """A `jail exec` on a terminal of its own, as a user at a keyboard has it."""

    def __init__(self, command):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
            os.execv(command[0], command)
        self.text = ""

    def until(self, word):
        def seen():
            if select.select([self.fd], [], [], 0)[0]:
                with contextlib.suppress(OSError):
                    self.text += os.read(self.fd, 4096).decode(errors="replace")
            return word in self.text
        return wait_for(seen, 10, f"{word!r} in {self.text!r}")

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return status


def test_a_terminal_is_stood_for_by_one_that_is_the_commands_own(it):
    tty = Tty(it.command("exec", NAME, "--", "sh"))
    tty.type("stty size; test -t 0 && test -t 1 && test -t 2 && echo all-$((40+2))\n")
    tty.until("all-42")
    assert "33 99" in tty.text
    fcntl.ioctl(tty.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 88, 0, 0))
    tty.type("sleep 0.3; stty size\n")
    tty.until("44 88")
    ours = f"/proc/{tty.pid}/fd/0"
    child = int(pathlib.Path(f"/proc/{tty.pid}/task/{tty.pid}/children").read_text().split()[0])
    for fd in "012":
        found = os.stat(f"/proc/{child}/fd/{fd}")
        assert stat.S_ISCHR(found.st_mode) and found.st_rdev != os.stat(ours).st_rdev, fd
    # Its keyboard works: an interrupt reaches what runs, and that alone.
    tty.type("sleep 100\n")
    time.sleep(0.2)
    tty.type("\x03")
    tty.type("echo after-$?-$((40+2))\n")
    tty.until("after-130-42")
    tty.type("exit 9\n")
    assert tty.end() == 9


def test_what_is_left_behind_cannot_read_the_terminal(it):
    tty = Tty(["/bin/sh", "-c", '"$@"; stty -a; echo back; sleep 0.5; read line; echo "got $line"', "sh",
               *it.command("exec", NAME, "--", "sh", "-c", "trap '' HUP; (trap '' HUP; while read x; do echo stolen-$x >> /run/house/stolen; done; echo end >> /run/house/stolen) <&1 & exit 0")])
    tty.until("back")
    assert " icanon" in tty.text and " echo " in tty.text, "our terminal is as it was"
    tty.type("password\n")
    tty.until("got password")
    assert tty.end() == 0
    stolen = it.home / "state/volumes/house-run/stolen"
    wait_for(stolen.exists, 5, "the end of the one that was left")
    assert stolen.read_text() == "end\n"


# ---- of the host


def test_a_command_of_the_host_finds_the_jails_files(it):
    assert run(it, "cat", "/etc/house/key", options=["--host"]).stdout == "secret\n"
    assert run(it, "ls", "/run/house", "-x").stdout.split()[0] == "pid"
    done = run(it, "sh", "-c", "echo new > /srv/house-of-a-test/deep/data/made; id -u; cat /proc/self/comm; test -e /etc/passwd; ls -d /run /srv/*; echo $MARK",
               options=["--host"], env={**os.environ, "MARK": "mine"})
    assert done.stdout.splitlines() == [str(os.getuid()), "cat", "/run", "/srv/house-of-a-test", "mine"]
    assert (it.home / "state/volumes/house-data/made").read_text() == "new\n"
    # Nothing of it on the host.
    for path in ("/etc/house", "/run/house", "/srv/house-of-a-test"):
        assert not os.path.lexists(path), path


def test_what_stands_beside_the_jails_files_is_the_hosts(it):
    script = 'for f in $(ls -A /run); do [ -e /run/$f ] || [ -L /run/$f ] || echo lost $f; done; ls -A /run; touch /run/x-of-a-test; '
    names = run(it, "sh", "-c", script, options=["--host"]).stdout.split()
    assert set(names) == set(os.listdir("/run")) | {"house"}
    assert not os.path.exists("/run/x-of-a-test")


def test_no_link_in_a_volume_leads_a_command_of_the_host_elsewhere(it):
    volume = it.home / "state/volumes/house-run"
    secret = it.home / "of-the-host"
    secret.write_text("the host's\n")
    (volume / "trap").symlink_to(secret)
    (volume / "away").symlink_to("/etc")
    os.mknod(volume / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    program = volume / "program"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    done = run(it, "cat", "/run/house/trap", "/run/house/away/passwd", options=["--host"], status=1)
    assert done.stdout == "" and done.stderr.count("symbolic links") == 2, done.stderr
    assert "Permission denied" in run(it, "sh", "-c", "echo > /run/house/null", options=["--host"], status=None).stderr
    assert run(it, "/run/house/program", options=["--host"], status=127).stdout == ""
    assert run(it, "sh", "-c", "echo x > /etc/house/key", options=["--host"], status=None).stderr.count("Read-only")
    assert secret.read_text() == "the host's\n"


def test_a_pid_of_the_volume_means_a_process_of_the_jail(it):
    """dovecot's master.pid holds 2. A command of the host that signals it must not meet the host's process 2."""
    number = (it.home / "state/volumes/house-run/pid").read_text().strip()
    daemon = it.status(NAME)["pid"]
    with lasting(it, "sleep", "100", options=["--host"]) as (_, pid):
        assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{daemon}/ns/pid") != os.readlink("/proc/self/ns/pid")
        assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink(f"/proc/{daemon}/ns/net") != os.readlink("/proc/self/ns/net")
        assert os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
    run(it, "kill", "-0", number, options=["--host"])
    assert run(it, "kill", "-0", str(os.getpid()), options=["--host"], status=1).stderr


# ---- with the jail


@pytest.mark.parametrize("options", [[], ["--host"]])
def test_a_stop_ends_it(it, options):
    with lasting(it, "sleep", "100", options=options) as (exec_, pid):
        it.run("stop", NAME)
        assert exec_.wait(5) == 137
        assert gone(pid)
    it.run("start", NAME)


def test_who_does_not_run_is_told_how_to_start(it):
    it.run("stop", NAME)
    done = run(it, "true", status=125)
    assert f"{NAME} does not run: it is stopped" in done.stderr and f"jail start {NAME}" in done.stderr
    it.run("start", NAME)
    done = subprocess.run(it.command("exec", "nobody", "--", "true"), capture_output=True, text=True)
    assert done.returncode == 125 and "jail build nobody" in done.stderr
    done = subprocess.run(it.command("exec", NAME), capture_output=True, text=True)
    assert done.returncode == 125 and f"jail exec {NAME} -- COMMAND" in done.stderr
    done = subprocess.run(it.command("status", "--", NAME), capture_output=True, text=True)
    assert done.returncode == 0
