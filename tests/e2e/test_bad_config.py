"""A mistake in a daemon's own configuration: "jail status" has the daemon's words for it within a second of a start, a restart
or a reload; what serves goes on serving, and there is no storm of restarts. Each case in a process, a network and an instance of
its own, side by side."""

import multiprocessing
import signal
import subprocess
import time

import pytest

import least_privilege
from jailtest import Instance, own_network, send, wait_for

# (service, file below the instance's home): what is appended or put in, with {} for a word of this try alone; and what the
# daemon says, with the same word.
MISTAKES = {
    ("named", "bind/named.conf"): ("{};\n", "unknown option '{}'"),
    ("named", "bind/db.example.test"): ("x IN {} 1\n", "loading from master file /etc/bind/db.example.test failed: unknown class/type"),
    ("dhcpd", "dhcp/dhcpd.conf"): ("{} 1;\n", "{} 1;"),
    ("dhcpd6", "dhcp/dhcpd6.conf"): ("{} 1;\n", "{} 1;"),
    ("smtpd", "postfix/main.cf"): ("{} has no sign\n", "missing '=' after attribute name: \"{} has no sign\""),
    ("smtpd", "postfix/master.cf"): ("smtp {} n - n - - smtpd\n", "{}"),
    ("imapd", "imapd/dovecot.conf"): ("{} = yes\n", "Unknown setting: {}"),
}
# What named-checkconf does not look at. named serves its other zones.
NOT_CHECKED = {("named", "bind/db.example.test")}
CRASH = "crash"  # with the mistake there, and the daemon killed
LIMIT = 2


def told(it, service, words, what):
    """How many seconds after `what` began the words were in jail status; the exit status and words of the command."""
    begin = time.monotonic()
    if what == [CRASH]:
        send(it.status(service)["pid"], signal.SIGKILL)
        command = None
    else:
        command = subprocess.Popen(it.command(*what, service), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: words in it.run("status", service, status=None).stdout, 5, f"{what}: {words!r} in jail status")
        took = time.monotonic() - begin
    except AssertionError as error:
        raise AssertionError(f"{error}\n{it.run('status', service, status=None).stdout}"
                             f"{it.run('logs', service, '-n', '20').stdout}") from None
    finally:
        said = command.communicate(timeout=60)[1] if command else ""
    return took, command and command.returncode, said


def tries(case):
    """{command: (seconds until it was told, state it came to, restarts)}; a text where that failed."""
    service, file = case
    line, words = MISTAKES[case]
    own_network()
    found = {}
    try:
        with least_privilege.house(service) as (it, _):
            it.drop_in(service, f'[service]\nrestart.limit = "{LIMIT}/60s"\n', "60-limit.toml")
            it.run("build", service)
            it.start_jaild()
            path = it.home / file
            good = path.read_text()
            for command in (["reload"], ["restart"], [CRASH], ["start", "--no-wait"]):
                path.write_text(good)
                it.run("restart", service)
                word = f"mistake-{command[0]}"
                assert words.format(word) not in it.run("status", service, status=None).stdout
                if command[0] == "start":
                    it.run("stop", service)
                path.write_text(good + line.format(word))
                before = it.status(service)["pid"]
                took, status, said = told(it, service, words.format(word), command)
                refused = command[0] in ("reload", "restart") and case not in NOT_CHECKED
                if refused:
                    assert status == 78 and words.format(word) in said, f"{command}: {status}: {said}"
                    assert it.status(service)["pid"] == before, f"{command}: it serves on"
                rest = "ready" if refused or case in NOT_CHECKED else "failed"
                end = wait_for(lambda: (s := it.status(service))["state"] == rest and s, 20, f"{command}: {rest}")
                found[command[0]] = (took, rest, end["restarts"])
            path.write_text(good)
            it.run("restart", service)
            assert words.format(word) not in it.run("status", service).stdout, "told no longer than it is so"
    except Exception as error:
        return case, f"{found} {type(error).__name__}: {error}"
    return case, found


@pytest.fixture(scope="module")
def outcomes():
    with multiprocessing.get_context("fork").Pool(4, least_privilege.on_term, maxtasksperchild=1) as pool:
        found = dict(pool.imap_unordered(tries, MISTAKES, chunksize=1))
        pool.close()
        pool.join()
    return found


@pytest.mark.parametrize("case", MISTAKES, ids=" ".join)
def test_it_is_told_in_the_daemons_words(outcomes, case):
    assert isinstance(outcomes[case], dict), outcomes[case]
    for command, (took, state, restarts) in outcomes[case].items():
        print(f"{' '.join(case)}: {command}: told after {took * 1000:.0f} ms, then {state} after {restarts} restarts")
        assert took < 1
        assert restarts <= LIMIT


# ---- what checks a configuration

HOUSE = """
version = 1
[tree]
binaries = ["/bin/busybox"]
users = ["nobody"]
[[volume]]
name = "state"
path = "/srv"
owner = "nobody"
[service]
command = ["/bin/busybox", "sleep", "1000"]
user = "nobody"
reload = "restart"
check_config = ["/bin/busybox", "sh", "-c", "CHECK"]
[sandbox]
syscalls = ["@default", "@process", "@file-write", "@network-client"]
"""
SH = "export PATH=; b=/bin/busybox; "


def service(it, check):
    it.manifest("tiny", HOUSE.replace("CHECK", SH + check))
    it.run("build", "tiny")
    it.run("start", "tiny")
    return it.status("tiny")["pid"]


def test_what_checks_is_confined_as_the_daemon_is_and_more():
    with Instance() as it:
        it.start_jaild()
        tell = ("$b grep -E '^(Uid|CapEff|CapBnd|Seccomp|NoNewPrivs):' /proc/self/status; $b ip -o link; $b touch /srv/x;"
                " $b touch /x; $b touch /tmp/x && echo tmp; $b ls /proc | $b grep -c '^[0-9]'; exit 3")
        pid = service(it, tell)
        before = it.status("tiny")
        said = it.run("reload", "tiny", status=78).stderr
        print(said)
        lines = [line.split("| ", 1)[1].replace("\\x09", " ").split() for line in said.splitlines() if "| " in line]
        assert ["Uid:"] + ["65534"] * 4 in lines and ["Seccomp:", "2"] in lines and ["NoNewPrivs:", "1"] in lines
        assert ["CapEff:", "0" * 16] in lines and ["CapBnd:", "0" * 16] in lines
        assert "eth" not in said and ",UP" not in said, "no network"
        assert "/srv/x: Read-only file system" in said and "/x: Read-only file system" in said and ["tmp"] in lines
        assert "exited with status 3" in said
        assert not list((it.home / "state/volumes/state").iterdir())
        assert it.status("tiny")["pid"] == pid and it.status("tiny")["restarts"] == before["restarts"]
        assert "| tmp" in it.run("status", "tiny").stdout
        # Accepted: what it says is nobody's business.
        it.run("stop", "tiny")
        pid = service(it, "echo fine")
        it.run("reload", "tiny")
        assert it.status("tiny")["pid"] != pid and "fine" not in it.run("status", "tiny").stdout


def test_one_that_hangs_is_killed_and_a_stop_in_the_meantime_stands():
    with Instance() as it:
        it.start_jaild()
        pid = service(it, "echo hangs; exec $b sleep 77")
        begin = time.monotonic()
        first = subprocess.Popen(it.command("restart", "tiny"), stderr=subprocess.PIPE, text=True)
        wait_for(lambda: "hangs" in it.run("status", "tiny").stdout, 5, "what it says meanwhile")
        assert "being checked" in it.run("restart", "tiny", status=78).stderr
        said = first.communicate(timeout=20)[1]
        assert first.returncode == 78 and "no result within 10s" in said
        assert 9 < time.monotonic() - begin < 13 and it.status("tiny")["pid"] == pid
        it.run("stop", "tiny")
        service(it, "$b sleep 1")
        first = subprocess.Popen(it.command("restart", "tiny"), stderr=subprocess.PIPE, text=True)
        time.sleep(0.3)
        it.run("stop", "tiny")
        assert first.wait(10) == 75 and "stopped meanwhile" in first.stderr.read()
        assert it.status("tiny")["state"] == "stopped"
