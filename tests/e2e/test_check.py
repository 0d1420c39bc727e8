"""A check decides about readiness only where it can be asked."""

import pytest

from jailtest import Instance, wait_for

MANIFEST = """
version = 1
[tree]
binaries = ["/bin/busybox"]
users = ["nobody"]
[service]
command = ["/bin/busybox", "sleep", "100000"]
user = "nobody"
ready = "check"
ready_timeout = "2s"
[check]
command = {command}
[sandbox]
syscalls = ["@default"]
"""


def serve(it, command):
    it.manifest("sleeper", MANIFEST.format(command=command))
    it.run("build", "sleeper")
    it.start_jaild()


@pytest.mark.parametrize("command", ['["/usr/bin/no-such-tool"]', '["/bin/sh", "-c", "no-such-tool"]', '["/etc/passwd"]'])
def test_one_that_cannot_be_run_keeps_no_service_from_being_ready(command):
    with Instance() as it:
        serve(it, command)
        it.run("start", "sleeper")
        assert it.status("sleeper")["state"] == "ready"
        assert "sleeper: its readiness does not wait for the check: it cannot be run (exit status 12" in (it.home / "jaild.err").read_text()
        assert "cannot be run" in it.run("status", "sleeper", status=None).stdout


def test_one_that_fails_does():
    with Instance() as it:
        serve(it, '["/bin/false"]')
        assert it.run("start", "sleeper", status=None).returncode != 0
        wait_for(lambda: "not ready after 2s: waiting for the check" in (it.home / "jaild.err").read_text(), what="the end of its patience")
        assert it.status("sleeper")["state"] != "ready"
