"""Debian packages that cannot be installed beside those that the machine has (a second mail server): installed for one test
process alone, by apt itself, into layers over the machine's directories."""

import contextlib
import ctypes
import os
import pathlib
import shutil
import subprocess
import tempfile

from jailtest import BIN, CLONE_NEWNS

# Where contrib/install-deps leaves what apt would otherwise fetch: a test has no network.
ARCHIVES = pathlib.Path("/var/cache/jail-tests")
LAYERED = ("etc", "usr", "var")


def layer(folder, scratch):
    """Over /`folder`: what is written there from now on is seen in this mount namespace only."""
    upper, work = scratch / folder / "upper", scratch / folder / "work"
    upper.mkdir(parents=True)
    work.mkdir()
    shutil.copystat(f"/{folder}", upper)
    options = f"lowerdir=/{folder},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", f"/{folder}"], check=True)


@contextlib.contextmanager
def layered():
    """Moves this process into a mount namespace of its own. /run is new there, and empty. The machine's own directories stay
    as they are: what is written below /etc, /usr and /var is gone at the end."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
    mount = lambda *words: subprocess.run(["mount", *map(str, words)], check=True)
    mount("--make-rprivate", "/")
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="jail-packages."))
    mounted = [scratch]
    # On a tmpfs: a layer cannot lie on what is a layer itself, as the root of a container is.
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", scratch)
    try:
        for folder in LAYERED:
            layer(folder, scratch)
            mounted.insert(0, f"/{folder}")
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        mounted.insert(0, "/run")
        pathlib.Path("/run/lock").mkdir(mode=0o1777)
        yield
    finally:
        for place in mounted:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
        scratch.rmdir()


@contextlib.contextmanager
def installed(bundle):
    """As layered(); the packages of `bundle` (contrib/install-deps has the list) are installed there, and those that conflict
    with them are not."""
    packages = (ARCHIVES / bundle / "packages").read_text().split()
    with layered():
        install(ARCHIVES / bundle, packages)
        yield


@contextlib.contextmanager
def jail_installed():
    """As layered(), with jail itself installed below /usr/local."""
    with layered():
        words = ["cmake", "--install", str(BIN.parent), "--prefix", "/usr/local"]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        yield


def install(archives, packages):
    # A full name for this host: without one sendmail's newaliases, which its installation runs, sleeps a minute.
    name = os.uname().nodename.split(".")[0]
    with open("/etc/hosts", "a") as hosts:  # in the layer
        hosts.write(f"\n127.0.1.1 {name}.localdomain {name}\n")
    policy = pathlib.Path("/usr/sbin/policy-rc.d")  # in the layer: no daemon starts
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    done = subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-download", "--no-install-recommends", "--allow-downgrades",
         "-o", f"Dir::Cache::archives={archives}", "-o", "Dpkg::Options::=--force-confnew", *packages],
        capture_output=True, text=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    assert done.returncode == 0, f"apt-get install {' '.join(packages)}:\n{done.stdout}{done.stderr}"
