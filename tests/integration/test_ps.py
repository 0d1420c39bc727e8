"""jail ps: the processes of jails, and which of them live in a generation that is not the current one."""

import os
import re
import select
import signal
import subprocess
import time

import pytest

from jailtest import Instance, send, wait_for

MANIFEST = """
version = 1
[tree]
binaries = ["/usr/bin/sleep", "/usr/sbin/chroot"]
users = ["nobody"]
files = [{{ to = "/etc/text", text = "{text}" }}]
[service]
command = ["/usr/bin/sleep", "1000"]
user = "nobody"
"""
# Its daemon goes on to another root, as Dovecot's and Postfix's do.
DEEPER = MANIFEST.replace('["/usr/bin/sleep", "1000"]', '["/usr/sbin/chroot", "/usr", "/bin/sleep", "1001"]').replace(
    'user = "nobody"', 'user = "root"\n[sandbox]\ncapabilities = ["sys_chroot"]\nsyscalls = ["@default", "chroot"]')


def build(it, name, text, manifest=MANIFEST):
    it.manifest(name, manifest.format(text=text))
    it.run("build", name)


@pytest.fixture
def it():
    with Instance() as instance:
        build(instance, "one", "a")
        build(instance, "two", "a")
        instance.start_jaild()
        instance.run("start", "one", "two")
        yield instance


def processes(it, *words, status=0):
    return [(p["jail"], p["generation"], p["command"].split("/")[-1]) for p in it.json("ps", *words, status=status)["processes"]]


def test_each_process_has_its_jail_its_user_and_its_time(it):
    pid = it.status("one")["pid"]
    found = next(p for p in it.json("ps", "one")["processes"] if p["pid"] == pid)
    nobody = int(subprocess.run(["id", "-u", "nobody"], capture_output=True, text=True).stdout)
    assert (found["jail"], found["generation"], found["current_generation"], found["stale"]) == ("one", 1, 1, False)
    assert (found["user"], found["uid"], found["command"]) == ("nobody", nobody, "/usr/bin/sleep 1000")
    assert abs(found["since"] - time.time()) < 20
    text = it.run("ps").stdout.splitlines()
    assert text[0].split() == ["JAIL", "GENERATION", "PID", "USER", "SINCE", "COMMAND"]
    assert any(re.match(rf"one +1 +{pid} +nobody +\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d  /usr/bin/sleep 1000$", line) for line in text)
    assert {line.split()[0] for line in text[1:]} == {"one", "two"}


def test_stale_are_those_in_another_generation_than_the_current_one(it):
    assert it.run("ps", "--stale").stdout == ""
    build(it, "one", "b")
    assert ("one", 1, "sleep 1000") in processes(it, "--stale", status=1)
    assert {jail for jail, _, _ in processes(it, "--stale", status=1)} == {"one"}
    assert re.search(r"^one +1 of 2 +\d+ ", it.run("ps", "--stale", status=1).stdout, re.M)
    assert processes(it, "two", "--stale") == []
    it.run("restart", "one")
    assert processes(it, "--stale") == []
    # Back to what was: now it is the newer one that is not current.
    it.run("rollback", "one")
    assert ("one", 2, "sleep 1000") in processes(it, "one", "--stale", status=1)


def test_no_jaild_is_needed(it):
    answer = it.supervisors()
    keeper, jaild, relay = (os.pidfd_open(answer[f"{who}_pid"]) for who in ("keeper", "jaild", "relay"))
    daemon = it.status("one")["pid"]
    inits = [p["pid"] for p in it.json("ps")["processes"] if p["pid"] not in (daemon, it.status("two")["pid"])]
    try:
        # Stopped first, so that neither makes the other anew.
        for pidfd in (keeper, jaild):
            signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        for pidfd in (keeper, jaild):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for pidfd in (keeper, jaild):
            assert select.select([pidfd], [], [], 10)[0]
        print(it.run("status", status=None))
        assert ("one", 1, "sleep 1000") in processes(it) and ("two", 1, "sleep 1000") in processes(it)
    finally:
        for pid in inits:
            send(pid, signal.SIGKILL)
        try:
            signal.pidfd_send_signal(relay, signal.SIGKILL)
        except ProcessLookupError:
            pass
        for pidfd in (keeper, jaild, relay):
            os.close(pidfd)
    wait_for(lambda: processes(it) == [], what="the end of the services")


def test_a_daemon_that_has_another_root_is_still_its_jails():
    with Instance() as it:
        build(it, "deep", "a", DEEPER)
        it.start_jaild()
        it.run("start", "deep")
        wait_for(lambda: ("deep", 1, "sleep 1001") in processes(it), what="the process")


def test_no_process_of_the_host_is_taken_for_a_jails(it):
    # Somebody looks into a tree by hand: of all that share his mounts only he is in it.
    tree = it.tree("one").resolve()
    by_hand = subprocess.Popen(["/usr/sbin/chroot", tree, "/usr/bin/sleep", "1002"])
    try:
        wait_for(lambda: ("one", 1, "sleep 1002") in processes(it), what="the process")
        assert not [p for p in it.json("ps")["processes"] if p["pid"] == os.getpid()]
        assert len(it.json("ps", "one")["processes"]) <= 3
    finally:
        by_hand.kill()
        by_hand.wait()


def test_what_is_not_there(it):
    assert "jail build nothing" in it.run("ps", "nothing", status=66).stderr
    it.run("ps", "No", status=64)
