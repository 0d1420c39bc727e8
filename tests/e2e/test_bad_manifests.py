"""What a newcomer gets wrong: each a message to act on, the right exit status, and nothing changed on disk."""

import os

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

CASES = {
    "syntax": (GOOD + "\n[sandbox\n", 65, ["broken.toml:10:", "]"]),
    "unknown key": (GOOD.replace("[tree]", '[tree]\nlibary = ["x"]'), 65, ["broken.toml:4:1: unknown key 'libary' in [tree]", "did you mean 'libraries'?"]),
    "missing binary": (GOOD.replace("/usr/bin/true", "/usr/bin/treu"), 65, ["/usr/bin/treu", "broken.toml:4:"]),
    "missing library": (GOOD.replace("users =", 'libraries = ["libnope.so.7"]\nusers ='), 65, ["libnope.so.7", "broken.toml:5:"]),
    "unknown user": (GOOD.replace("nobody", "nobodee"), None, ["nobodee", "broken.toml:"]),
    "odd uid": (GOOD.replace('"nobody"', '"0x10"'), 65, ["0x10", "broken.toml:"]),
    "bad device": (GOOD.replace("users =", 'devices = ["nulll"]\nusers ='), None, ["nulll", "broken.toml:5:"]),
    "wrong type": (GOOD.replace("version = 1", 'version = "one"'), 65, ["broken.toml:2:", "version"]),
    "escaping path": (GOOD.replace("users =", 'files = [{ to = "/../../etc/x", text = "x" }]\nusers ='), 65, ["broken.toml:5:", "/../../etc/x"]),
}


def everything(home):
    return sorted(os.path.join(folder, name) for folder, folders, files in os.walk(home) for name in folders + files)


@pytest.mark.parametrize("case", CASES)
def test_message_status_and_nothing_changed(case):
    text, status, words = CASES[case]
    with Instance() as it:
        it.manifest("broken", text)
        before = everything(it.home)
        done = it.run("build", "broken", status=status)
        print(done.stderr)
        assert done.returncode not in (0, 70)
        for word in words:
            assert word in done.stderr
        assert everything(it.home) == before


def test_several_problems_are_told_at_once():
    with Instance() as it:
        path = it.manifest("broken", GOOD.replace("[tree]", "[tree]\nlibary = []") + 'usr = "x"\nnice = "very"\n')
        done = it.run("lint", path, status=65)
        text = done.stdout + done.stderr
        for word in ("libary", "usr", "nice"):
            assert word in text


def test_start_before_build_says_what_to_do():
    with Instance() as it:
        assert "jail build named" in it.run("start", "named", status=66).stderr
        it.start_jaild()
        assert "jail build named" in it.run("start", "named", status=66).stderr
        it.manifest("tiny", GOOD)
        it.run("build", "tiny")
        it.stop_jaild()
        done = it.run("start", "tiny", status=69)
        assert "jaild" in done.stderr


def test_a_good_minimal_manifest_builds():
    with Instance() as it:
        it.manifest("tiny", GOOD)
        it.run("build", "tiny")
        it.run("verify", "tiny")


def test_groups_that_are_not_found_are_told_with_the_places(tmp_path):
    with Instance(manifests=tmp_path) as it:
        path = it.manifest("tiny", GOOD)
        done = it.run("build", path, status=65)
        assert "there is no syscall group 'default'" in done.stderr
        assert f"{tmp_path}/syscalls" in done.stderr
