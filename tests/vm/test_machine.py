"""jaild as the init of a machine, on Debian 12's kernel, with the cgroup v2 controllers that it asks for."""

import pytest

from jailtest import Instance
from machine import Machine, checks_in

BUSY = """
version = 1
[tree]
binaries = ["/bin/busybox"]
users = ["nobody"]
[service]
command = {command}
user = "nobody"
restart = {{ on = "failure", delay = "1s" }}
[sandbox]
syscalls = ["@default"]
limits = {{ {limits} }}
"""
CHECKS = ["pid-one", "named-runs", "named-answers", "confined", "verifies", "doctor", "memory", "processes", "nothing-left",
          "survives-kill", "orphans-reaped", "named-still-answers"]


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    with Instance() as it:
        it.manifest("steady", BUSY.format(command='["/bin/busybox", "sleep", "100000"]', limits=""))
        it.manifest("hungry", BUSY.format(command='["/bin/busybox", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M"]', limits='memory = "24M"'))
        # The inner shell ends when it can start no more; what it started, and the outer one, stay.
        crowd = """["/bin/busybox", "sh", "-c", "$0 sh -c 'while :; do $0 sleep 1000 & done' $0; exec $0 sleep 1000", "/bin/busybox"]"""
        it.manifest("crowd", BUSY.format(command=crowd, limits="processes = 12"))
        it.run("build", "named", "steady", "hungry", "crowd")
        made = Machine(it, tmp_path_factory.mktemp("machine"))
        made.take_jails()
        return made


@pytest.fixture(scope="module")
def console(machine):
    text = machine.boot()
    print(text)
    return text


@pytest.mark.parametrize("name", CHECKS)
def test_in_the_machine(console, name):
    checks = checks_in(console)
    assert name in checks, f"the machine never came to it:\n{console[-4000:]}"
    assert checks[name] == ""


def test_the_machine_goes_off_when_all_services_have_ended(console):
    assert "jaild has ended (0): powering off" in console
    assert "Power down" in console
    assert "panic" not in console


def test_it_starts_again_where_that_is_asked_for(machine):
    console = machine.boot("jail.end=restart")
    assert "steady: stopped" in console and "jaild has ended (0): restarting the machine" in console
    assert "reboot: Restarting system" in console and "panic" not in console
