"""A build that has nothing to do knows it from what the last one looked at: whatever a build looks at, a change of it is seen."""

import os
import re
import shutil
import subprocess
import time

import pytest

from jailtest import BIN
from witnesshouse import SOURCES, built, current, edit, it, replace_link, rewrite

STATE = {
    "bytes in the tree, nothing else": lambda it: rewrite(current(it) / "tree/usr/share/data/one", b"bad"),
    "a mode in the tree": lambda it: (current(it) / "tree/usr/share/data/one").chmod(0o777),
    "a file that was added to the tree": lambda it: (current(it) / "tree/usr/share/data/extra").write_text("x"),
    "a file gone from the tree": lambda it: (current(it) / "tree/usr/share/data/one").unlink(),
    "a link in the tree": lambda it: replace_link(current(it) / "tree/etc/linked", "/etc/passwd") if (current(it) / "tree/etc/linked").is_symlink() else (current(it) / "tree/etc/linked").write_text("forged"),
    "the launch spec": lambda it: edit(current(it) / "launch.json", "witness", "witless"),
    "the lock": lambda it: edit(current(it) / "jail.lock", "data", "atad"),
}


@pytest.mark.parametrize("what", SOURCES)
def test_a_change_of_what_a_build_reads_is_seen(it, what):
    SOURCES[what](it)
    done = it.run("build", "-v", "witness", status=None)
    assert "as its witness says" not in done.stdout, what
    assert done.returncode != 0 or "generation 2" in done.stdout, done.stdout + done.stderr
    assert (done.returncode != 0) == ("masked" in what)


@pytest.mark.parametrize("what", STATE)
def test_a_change_of_what_was_built_is_seen_and_mended(it, what):
    STATE[what](it)
    assert it.run("verify", "witness", status=None).returncode != 0
    assert "as its witness says" not in built(it)
    it.run("verify", "witness")


def test_a_volume_of_another_mode_is_an_error_again(it):
    (it.home / "state/volumes/witness-data").chmod(0o777)
    assert "0777" in it.run("build", "witness", status=78).stderr


def test_what_a_killed_build_left_is_cleaned(it):
    left = it.home / "state/jails/witness/gen/.new-999999"
    left.mkdir()
    assert "as its witness says" not in built(it)
    assert not left.exists()


def test_another_jail_program_looks_for_itself(it):
    other = it.home / "jail"
    shutil.copy(BIN / "jail", other)
    done = subprocess.run([other, *it.command("build", "-v", "witness")[1:]], capture_output=True, text=True, check=True)
    assert "up to date" in done.stdout and "witness" not in done.stdout.replace("witness: ", "", 1)


def test_no_witness_is_left_for_what_changes_meanwhile(it):
    """In the tick of the clock in which a build begins, a file can change twice with one stamp."""
    edit(it.home / "manifests/bundles/small.toml", '"small" }', '"large" }')
    it.run("build", "witness")
    time.sleep(0.05)
    racing = it.home / "source/data/one"
    for _ in range(5):
        racing.write_text("abc")
        racing.write_text("one")
        said = built(it), built(it)
        assert not any("as its witness says" in line for line in said[:1])


@pytest.mark.parametrize("damage", [b"", b"jail-witness 1\0", b"jail-witness 2\0", b"\xff" * 4096], ids=["empty", "a head", "another version", "noise"])
def test_a_broken_witness_is_no_witness(it, damage):
    (current(it) / "witness").write_bytes(damage)
    said = built(it)
    assert "up to date" in said and "as its witness" not in said
    assert "as its witness says" in built(it)


CALL = re.compile(r"^\d+ +(?:openat2?|newfstatat|statx|readlinkat|readlink|access|faccessat2?)\((?:AT_FDCWD|\d+<(?P<dir>[^>]*)>)?(?:, )?\"(?P<path>[^\"]*)\"(?P<rest>.*)")


@pytest.mark.parametrize("memo", [False, True], ids=["all of it by itself", "closures by heart"])
def test_nothing_that_a_build_looks_at_is_left_out(it, memo):
    """The kernel's word for it: each path below the sources and the manifests that a build opened or asked for."""
    (current(it) / "witness").unlink()
    if not memo:
        (it.home / "state/store/memo-witness").unlink()
    log = it.home / "strace.log"
    subprocess.run(["strace", "-f", "-y", "-s", "4096", "-e", "trace=%file,openat2", "-o", log, *it.command("build", "witness")], check=True, stdout=subprocess.DEVNULL)
    known = set((current(it) / "witness").read_bytes().decode().split("\0"))
    known |= {os.path.realpath(path) for path in known if path.startswith("/")}
    state = str(it.home / "state")
    ours = ("/proc/", "/sys/", "/dev/", "/var/lib/dpkg/info")
    seen, missing = 0, set()
    for line in log.read_text().splitlines():
        match = CALL.match(line)
        if not match:
            continue
        path = match["path"]
        if not path.startswith("/"):
            path = os.path.normpath(os.path.join(match["dir"] or "/", path))
        if path.startswith((state, *ours)) or path in ("/", state) or str(it.home).startswith(path):
            continue
        seen += 1
        if path not in known:
            missing.add(path)
    print(f"{seen} looks")
    assert seen > 100
    assert not missing, missing
