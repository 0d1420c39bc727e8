"""Killed with -9 on the way into a system call, at any of them from the first to the last: builds, first ones and plain ones
too, gc, rollback and remove. What was whole before is whole after, and the next run cleans up.

Places are sampled by a seed that is printed (JAIL_TEST_SEED repeats it); with JAIL_TEST_FULL all of them are tried."""
import os
import pathlib
import random
import shutil
import subprocess
import time

import pytest

from jailtest import BIN
from treehome import Home, own_mounts  # noqa: F401

FULL = bool(os.environ.get("JAIL_TEST_FULL"))
SEED = int(os.environ.get("JAIL_TEST_SEED", random.SystemRandom().randrange(1_000_000)))
SECRET = '\n[[tree.files]]\nfrom = "/mnt/home/key"\nto = "/etc/key"\nowner = "nobody"\nmode = "0400"\nsecret = true\n'


def small_root():
    """A source root that holds just what the jail needs, and a package database of one package: of a host's thousand lists
    most system calls would be reads."""
    root = pathlib.Path("/mnt/root")
    for folder in ("usr/bin", "usr/lib64", "usr/lib/x86_64-linux-gnu", "etc", "mnt", "var/lib/dpkg/info"):
        (root / folder).mkdir(parents=True)
    for link in ("bin", "lib", "lib64"):
        (root / link).symlink_to(f"usr/{link}")
    files = ["/usr/bin/true", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"]
    for file in files:
        shutil.copy(file, root / file.lstrip("/"))
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (root / "mnt/home").symlink_to("/home")
    (root / "home").mkdir()
    (root / "var/lib/dpkg/info/one.list").write_text("/.\n" + "\n".join(files) + "\n")
    (root / "var/lib/dpkg/status").write_text("Package: one\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n")
    return root


class Deed:
    """A command that is killed: what stands before it, what it is, and what must hold after."""

    def __init__(self, home):
        self.home = home
        self.number = 0
        self.root = small_root()

    def change(self):
        """New bytes in everything that a build reads."""
        self.number += 1
        text = f"N{self.number}"
        self.home.change(text)
        (self.root / "home/key").write_text(f"key {text}")
        shutil.copy(self.home.path / "blob", self.root / "home/blob")
        manifest = self.home.path / "manifests/tiny.toml"
        # An inline list cannot be added to: the secret goes into a drop-in.
        manifest.with_suffix(".toml.d").mkdir(exist_ok=True)
        (manifest.with_suffix(".toml.d") / "50-secret.toml").write_text("version = 1\n" + SECRET)
        return text

    def build(self):
        self.home.run(*Build.words)

    def whole(self):
        """The current generation, if there is one, is as it was built; returns its text."""
        if not os.path.lexists(self.home.jail / "current"):
            assert "has not been built" in self.home.run("verify", "tiny", status=66).stderr
            return None
        self.home.run("verify", "tiny")
        text = self.home.text()
        assert (self.home.jail / "current/tree/etc/key").read_text() == f"key {text}"
        return text

    def clean(self):
        self.home.run("gc", "--keep", "2")
        assert self.home.leftovers() == []


class Build(Deed):
    words = ("--root", "/mnt/root", "build", "tiny")

    def before(self):
        if not self.number:
            for _ in range(3):
                self.change()
                self.build()
        self.old = self.home.text()
        self.new = self.change()

    def after(self):
        assert self.whole() in (self.old, self.new)
        self.build()
        assert self.whole() == self.new
        assert [p.name for p in (self.home.jail / "gen").iterdir() if not p.name.isdigit()] == []
        self.clean()


class FirstBuild(Deed):
    words = ("--root", "/mnt/root", "build", "tiny")

    def before(self):
        shutil.rmtree(self.home.path / "state", ignore_errors=True)
        self.new = self.change()

    def after(self):
        assert self.whole() in (None, self.new)
        self.build()
        assert self.whole() == self.new
        self.clean()


class Gc(Deed):
    words = ("gc", "--keep", "0")

    def before(self):
        for _ in range(2):
            self.new = self.change()
            self.build()

    def after(self):
        assert self.whole() == self.new
        self.home.run("gc", "--keep", "0")
        assert len(list((self.home.jail / "gen").iterdir())) == 1
        assert self.whole() == self.new
        assert self.home.leftovers() == []


class Rollback(Deed):
    words = ("rollback", "tiny")

    def before(self):
        if not self.number:
            for _ in range(2):
                self.new = self.change()
                self.build()
        elif self.home.text() != self.new:
            self.home.run("rollback", "tiny", "2")

    def after(self):
        assert self.whole() in ("N1", "N2")
        self.home.run("rollback", "tiny", "1")
        assert self.whole() == "N1"
        assert self.home.leftovers() == []


class Remove(Deed):
    words = ("remove", "--purge", "tiny")

    def before(self):
        self.new = self.change()
        self.build()

    def after(self):
        assert self.whole() in (None, self.new)
        done = self.home.run("remove", "--purge", "tiny", status=None)
        assert done.returncode in (0, 66), done.stderr
        self.home.run("gc")
        state = self.home.path / "state"
        assert [p for p in (state / "jails").iterdir()] == []
        assert [p for p in (state / "store/objects").iterdir()] == []


class Plain(Deed):
    words = ("--root", "/mnt/root", "build", "--into", "/mnt/plain/tree", "tiny")

    def before(self):
        pathlib.Path("/mnt/plain").mkdir(exist_ok=True)
        self.old = self.now()
        self.new = self.change()

    def now(self):
        tree = pathlib.Path("/mnt/plain/tree")
        if not tree.exists():
            return None
        self.home.run("verify", "/mnt/plain/tree")
        text = (tree / "etc/text").read_text()
        assert (tree / "etc/key").read_text() == f"key {text}"
        return text

    def after(self):
        assert self.now() in (self.old, self.new)
        self.home.run(*self.words)
        assert self.now() == self.new
        assert sorted(os.listdir("/mnt/plain")) == ["tree", "tree.jail"]


class FirstPlain(Plain):
    def before(self):
        shutil.rmtree("/mnt/plain", ignore_errors=True)
        super().before()


def killed_at(home, place, words):
    """Runs the command until it is killed at the place; None where it ended before. 0: it is let go to its end."""
    done = subprocess.run([str(BIN / "killer"), str(place), *home.command(*words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    how, *numbers = done.stdout.split()
    if how == "ended":
        assert numbers[0] == "0", done.stdout
        return None if place else int(numbers[1])
    return how


@pytest.mark.parametrize("deed", [Build, FirstBuild, Gc, Rollback, Remove, Plain, FirstPlain])
def test_killed_at_any_system_call(deed):
    with Home("size=128m") as home:
        it = deed(home)
        it.before()
        calls = killed_at(home, 0, it.words)
        it.after()
        # A few more than one run made: threads make theirs as they come.
        places = list(range(1, calls + 20))
        if not FULL:
            random.Random(SEED).shuffle(places)
        begin = time.monotonic()
        tried = killed = 0
        for place in places:
            if not FULL and time.monotonic() > begin + 4:
                break
            it.before()
            killed += killed_at(home, place, it.words) is not None
            tried += 1
            try:
                it.after()
            except AssertionError as error:
                raise AssertionError(f"killed at system call {place} of {calls} (seed {SEED}): {error}") from error
        print(f"{' '.join(it.words)}: killed at {killed} of {calls} system calls"
              + ("" if FULL else f", sampled by seed {SEED}"))
        assert killed >= (calls - 20 if FULL else 5)
