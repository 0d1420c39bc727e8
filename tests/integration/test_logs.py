"""jail logs: the last lines, all lines, and those to come, also over rotation; jail doctor: the host, and each built jail."""
import os
import pathlib
import select
import subprocess
import time

import pytest

from jailtest import Instance

GOOD = """
version = 1
[tree]
binaries = ["/usr/bin/true"]
users = ["nobody"]
[service]
command = ["/usr/bin/true"]
user = "nobody"
"""


@pytest.fixture
def instance():
    with Instance() as it:
        (it.home / "log").mkdir()
        yield it


def write(instance, name, first, last):
    with open(instance.home / "log" / f"{name}.log", "a") as file:
        file.writelines(f"line {number}\n" for number in range(first, last))


def test_the_last_lines(instance):
    write(instance, "named", 0, 100_000)
    lines = instance.run("logs", "named").stdout.splitlines()
    assert lines == [f"line {number}" for number in range(99_950, 100_000)]
    assert instance.run("logs", "named", "-n", "1").stdout == "line 99999\n"
    assert instance.run("logs", "named", "-n", "0").stdout == ""
    assert instance.run("logs", "named", "-n", "all").stdout.count("\n") == 100_000
    assert instance.run("logs", "named", "-n", "999999").stdout.count("\n") == 100_000


def test_a_last_line_without_its_end_is_a_line(instance):
    (instance.home / "log/named.log").write_text("one\ntwo\nthr")
    assert instance.run("logs", "named", "-n", "2").stdout == "two\nthr"


def test_several_jails_and_what_is_not_there(instance):
    write(instance, "named", 0, 2)
    write(instance, "dhcpd", 5, 6)
    assert instance.run("logs", "named", "dhcpd").stdout == "line 0\nline 1\nline 5\n"
    assert "jail build imapd" in instance.run("logs", "imapd", status=66).stderr
    assert "many" in instance.run("logs", "named", "-n", "many", status=64).stderr


def test_a_jail_that_has_logged_nothing_is_no_error(instance):
    instance.manifest("tiny", GOOD)
    instance.run("build", "tiny")
    assert instance.run("logs", "tiny").stdout == ""


def test_a_link_in_the_place_of_a_log_is_not_followed(instance):
    (instance.home / "log/named.log").symlink_to("/etc/passwd")
    assert instance.run("logs", "named", status=74).stdout == ""


class Follower:
    def __init__(self, instance, *words):
        self.process = subprocess.Popen(instance.command("logs", *words), stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def read(self, until, seconds=5):
        text, end = b"", time.monotonic() + seconds
        while not text.endswith(until) and (left := end - time.monotonic()) > 0:
            if select.select([self.process.stdout], [], [], left)[0]:
                text += os.read(self.process.stdout.fileno(), 65536)
        return text


def test_follow_goes_on_over_rotation_and_truncation(instance):
    write(instance, "named", 0, 3)
    log = instance.home / "log/named.log"
    with Follower(instance, "named", "-n", "1", "-f") as follower:
        assert follower.read(b"2\n") == b"line 2\n"
        write(instance, "named", 3, 5)
        assert follower.read(b"4\n") == b"line 3\nline 4\n"
        log.rename(instance.home / "log/named.log.1")
        write(instance, "named", 5, 6)
        assert follower.read(b"5\n") == b"line 5\n"
        os.truncate(log, 0)
        with open(log, "a") as file:
            file.write("new\n")  # shorter than what was there: else nothing tells the one from the other
        assert follower.read(b"new\n") == b"new\n"


def test_doctor_tells_of_the_host_and_of_each_jail(instance):
    instance.manifest("tiny", GOOD)
    instance.manifest("picky", GOOD + '[sandbox]\nrequire = ["mdwe"]\n')
    instance.run("build", "tiny", "picky")
    found = instance.json("doctor", status=None)
    features = {feature["name"]: feature for feature in found["features"]}
    for name in ("root", "namespaces", "mount-api", "safe-paths", "seccomp"):
        assert features[name]["present"] and features[name]["floor"], name
    with open("/proc/self/status") as status:
        landlock = features["landlock-scope"]
        assert not landlock["floor"] and landlock["requirable"]
        assert "Seccomp:" in status.read()
    jails = {jail["name"]: jail for jail in found["jails"]}
    assert jails["tiny"]["runs"]
    assert jails["picky"]["runs"] == features["mdwe"]["present"]
    text = instance.run("doctor", status=None).stdout
    assert "seccomp" in text and "tiny: " in text


def test_doctor_says_no_where_a_jail_cannot_run(instance):
    instance.manifest("tiny", GOOD)
    instance.run("build", "tiny")
    assert instance.run("doctor").returncode == 0
    (pathlib.Path(instance.home) / "state/jails/tiny/current/launch.json").write_text("{}")
    done = instance.run("doctor", status=1)
    assert "tiny: cannot run here: " in done.stdout
