"""A machine of its own, in QEMU, on Debian 12's kernel: jaild is its PID 1 and has its cgroups to itself, which no test on this
host can give it. Its root is a plain tree that `jail build --into` makes of busybox; the jails are built here."""

import pathlib
import platform
import re
import shutil
import subprocess

import pytest

from jailtest import BIN

ARCHIVES = pathlib.Path("/var/cache/jail-tests/kernel")  # contrib/install-deps fetches into it
PROGRAMS = ("jail", "jaild", "jail-keeper", "jail-relay", "jail-init")
HERE = pathlib.Path(__file__).parent
ROOT = """
version = 1
[tree]
binaries = ["/bin/busybox", "/usr/bin/dig"]
users = ["root", "nobody", "bind"]
[service]
command = ["/bin/busybox"]
user = "root"
"""
# The kernel's first root cannot be left by pivot_root(2): everything moves to another one first.
FIRST = """#!/bin/busybox sh
/bin/busybox mkdir /new
/bin/busybox mount -t tmpfs -o size=80% new /new
cd / && for each in *; do [ "$each" = new ] || /bin/busybox cp -a "$each" /new/; done
exec /bin/busybox switch_root /new /sbin/start
"""


def kernel(place):
    """The kernel's image, out of Debian's package."""
    if platform.machine() != "x86_64":
        pytest.skip("the machine is one with an x86_64 kernel, which this host's programs are not made for")
    package = next(ARCHIVES.glob("linux-image-[0-9]*.deb"))
    subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, stdout=open(place / "kernel.tar", "wb"))
    subprocess.run(["tar", "-C", place, "--wildcards", "-xf", place / "kernel.tar", "./boot/vmlinuz-*"], check=True)
    (place / "kernel.tar").unlink()
    return next((place / "boot").glob("vmlinuz-*"))


class Machine:
    """What goes into it: `it` is the Instance whose built jails it runs, at the same path."""

    def __init__(self, it, place):
        self.it = it
        self.place = place
        self.root = place / "root"
        it.manifest("machine", ROOT)
        it.run("build", "--into", self.root, "machine")
        (self.root / "sys").mkdir()
        (self.root / "var").mkdir(exist_ok=True)
        for name in PROGRAMS:
            target = self.root / "usr/sbin" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["strip", "-o", target, BIN / name], check=True)
        for name in ("start", "checks"):
            self.add(f"sbin/{name}", (HERE / f"{name}.sh").read_text().replace("@HOME@", str(it.home)), 0o755)
        self.add("init", FIRST, 0o755)

    def add(self, path, text, mode=0o644):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def take_jails(self):
        """The built jails: their generations and volumes, not the store, whose objects are in the trees already."""
        for part in ("jails", "volumes"):
            source = self.it.home / "state" / part
            target = self.root / str(source).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", source, target.parent], check=True)
        shutil.copytree("/etc/bind", self.root / "etc/bind", symlinks=True, dirs_exist_ok=True)

    def boot(self, words="", seconds=300):
        """Runs it to its end, `words` on its kernel's command line; returns what it wrote to its console."""
        image = self.place / "root.cpio"
        with open(image, "wb") as out:
            names = subprocess.run(["find", ".", "-print0"], cwd=self.root, check=True, capture_output=True).stdout
            subprocess.run(["cpio", "--quiet", "-0", "-o", "-H", "newc"], cwd=self.root, check=True, input=names, stdout=out)
        command = ["qemu-system-x86_64", "-accel", "tcg", "-m", "1024", "-smp", "2", "-nographic", "-nodefaults", "-no-reboot"]
        command += ["-serial", "stdio", "-kernel", kernel(self.place), "-initrd", image, "-append", f"console=ttyS0 quiet panic=-1 {words}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)
        text = done.stdout.decode(errors="replace").replace("\r", "")
        assert done.returncode == 0, text[-4000:] + done.stderr.decode()
        return text


def checks_in(console):
    """{name: what was found wrong, or ""} of the lines that checks.sh writes."""
    return {name: "" if verdict == "ok" else verdict for name, verdict in re.findall(r"^CHECK (\S+): (.*)$", console, re.M)}
