"""A house for the tests of builds: an instance on a small file system of its own, in a mount namespace of the test's
process."""
import ctypes
import errno
import os
import pathlib
import re
import subprocess

import pytest

from jailtest import BIN, REPO

MANIFEST = """
version = 1
[tree]
binaries = ["/usr/bin/true"]
users = ["nobody"]
devices = ["null"]
files = [{{ to = "/etc/text", text = "{text}" }}, {{ from = "{home}/blob", to = "/usr/share/blob" }}]
[[volume]]
name = "tiny-data"
path = "/var/lib/tiny"
owner = "nobody"
mode = "0750"
[service]
command = ["/usr/bin/true"]
user = "nobody"
"""


@pytest.fixture(scope="module", autouse=True)
def own_mounts():
    """What is mounted here is seen by this process and its children, and gone with them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000) != 0:  # CLONE_NEWNS
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def refused():
    """What a command is run by so that the kernel refuses it a system call: openat2 in one run of the tests."""
    call = os.environ.get("JAIL_TEST_REFUSE")
    return [str(BIN / "refuser"), call, str(errno.ENOSYS)] if call else []


def jail(home, *words):
    return [*refused(), str(BIN / "jail"), "--home", str(home), "--manifests", str(REPO / "manifests"), *words]


class Home:
    """An instance on a tmpfs of its own, mounted over /mnt: outside of the places for temporary files."""

    def __init__(self, options="size=64m"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0755,{options}", "tmpfs", "/mnt"], check=True)
        self.path = pathlib.Path("/mnt/home")
        self.path.mkdir()
        self.jail = self.path / "state/jails/tiny"
        self.change("A")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", "/mnt"], check=True)

    def change(self, text, more=""):
        """A new manifest and a new source: the next build has something to do."""
        (self.path / "blob").write_bytes(text.encode() * (10000 // len(text)))
        (self.path / "manifests").mkdir(exist_ok=True)
        (self.path / "manifests/tiny.toml").write_text(MANIFEST.format(text=text, home=self.path) + more)

    def command(self, *words):
        return jail(self.path, *words)

    def run(self, *words, status=0, before=()):
        done = subprocess.run([*before, *self.command(*words)], capture_output=True, text=True, timeout=60)
        if status is not None:
            assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def text(self):
        return (self.jail / "current/tree/etc/text").read_text()

    def leftovers(self):
        """What a finished build leaves that it should not."""
        state = self.path / "state"
        found = [p for p in self.jail.iterdir() if p.name not in ("current", "gen", ".lock")]
        found += [p for p in (self.jail / "gen").iterdir() if not re.fullmatch(r"\d{6}", p.name)]
        found += list((state / "store/tmp").iterdir())
        found += [p for p in (state / "store/objects").iterdir() if p.stat().st_nlink < 2]
        found += [p for p in (state / "volumes").iterdir() if p.name != "tiny-data"]
        return found

    def snapshot(self):
        return snapshot(self.path / "state")


def snapshot(top):
    """Path, type, mode, owner, size and bytes of all below `top`."""
    found = {}
    for folder, folders, files in os.walk(top):
        for name in folders + files + ["."]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content = pathlib.Path(path).read_bytes() if os.path.isfile(path) and not os.path.islink(path) else b""
            link = os.readlink(path) if os.path.islink(path) else ""
            found[path] = (status.st_mode, status.st_uid, status.st_gid, content, link)
    return found
