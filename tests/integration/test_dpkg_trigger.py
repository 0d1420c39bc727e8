"""contrib/debian: dpkg's own trigger marks jails that hold older files than the host, by upgrade and by downgrade of a real
package, and does nothing else. On layers that are gone when this process ends."""

import contextlib
import os
import pathlib
import shutil
import subprocess

import pytest

from jailtest import BIN, REPO
from packages import layered

STATE = pathlib.Path("/var/lib/jail/jails")
MANIFEST = """
version = 1
[tree]
binaries = ["/usr/bin/sleep"]
users = ["nobody"]
{files}
[service]
command = ["/usr/bin/sleep", "1000"]
user = "nobody"
"""
FILES = 'files = [{ from = "/usr/share/jail-thing", to = "/usr/share/jail-thing" }]'


def deb(folder, name, version, lay_out, scripts=()):
    """A package, as dpkg-deb makes it: `lay_out` fills its directory, `scripts` are files for its DEBIAN."""
    root = folder / f"{name}-{version}"
    (root / "DEBIAN").mkdir(parents=True)
    lay_out(root)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: jail <root@localhost>\nDescription: of a test\n")
    for source, target in scripts:
        text = source.read_text().replace("#DEBHELPER#\n", "")
        (root / "DEBIAN" / target).write_text(text)
        (root / "DEBIAN" / target).chmod(0o755 if target == "postinst" else 0o644)
    made = folder / f"{name}-{version}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", root, made], check=True, capture_output=True)
    return made


def thing(text, place="usr/share/jail-thing"):
    def lay_out(root):
        (root / place).mkdir(parents=True)
        (root / place / "one").write_text(text)
    return lay_out


def jails_own(root):
    (root / "usr/bin").mkdir(parents=True)
    subprocess.run(["strip", "-o", root / "usr/bin/jail", BIN / "jail"], check=True)


def dpkg(*words):
    done = subprocess.run(["dpkg", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def jail(*words, status=0):
    done = subprocess.run(["/usr/bin/jail", *words], capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def mark(name):
    path = STATE / name / "stale"
    return path.read_text() if path.exists() else None


@pytest.fixture(scope="module")
def debs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("debs")
    own = REPO / "contrib/debian"
    return {
        "jail": deb(folder, "jail", "0.1", jails_own, [(own / "jail.postinst", "postinst"), (own / "jail.triggers", "triggers")]),
        "1.0": deb(folder, "jail-thing", "1.0", thing("first\n")),
        "1.1": deb(folder, "jail-thing", "1.1", thing("second\n")),
        "lib": deb(folder, "jail-lib", "1", thing("x\n", "lib/jail-lib")),
    }


@contextlib.contextmanager
def machine(debs):
    with layered():
        dpkg("-i", debs["1.0"], debs["jail"])
        manifests = pathlib.Path("/etc/jail/manifests")
        for folder in ("syscalls", "bundles"):
            shutil.copytree(REPO / "manifests" / folder, manifests / folder)
        (manifests / "thing.toml").write_text(MANIFEST.format(files=FILES))
        (manifests / "apart.toml").write_text(MANIFEST.format(files=""))
        jail("build", "thing", "apart")
        yield


@pytest.fixture
def it(debs):
    with machine(debs):
        yield


def test_an_upgrade_and_a_downgrade_mark_what_holds_the_old_files(it, debs):
    assert mark("thing") is None
    said = dpkg("-i", debs["1.1"])
    assert "Processing triggers for jail" in said and "jail refresh --all" in said
    # The version that dpkg has only noted by then.
    assert mark("thing") == "jail-thing 1.0 -> 1.1\n" and mark("apart") is None
    assert "stale" in next(line for line in jail("list").splitlines() if line.startswith("thing"))
    # Nothing was built: that is asked for.
    assert os.readlink(STATE / "thing/current") == "gen/000001"
    jail("refresh", "--all")
    assert mark("thing") is None and os.readlink(STATE / "thing/current") == "gen/000002"
    dpkg("-i", debs["1.0"])
    assert mark("thing") == "jail-thing 1.1 -> 1.0\n"
    jail("build", "thing")
    assert mark("thing") is None


def test_what_goes_back_by_itself_loses_its_mark(it, debs):
    dpkg("-i", debs["1.1"])
    assert mark("thing")
    assert "jail refresh" not in dpkg("-i", debs["1.0"])
    assert mark("thing") is None


def test_a_file_in_the_unmerged_spelling_pulls_the_trigger_too(it, debs):
    if not pathlib.Path("/lib").is_symlink():
        pytest.fail("this machine has no merged /usr")
    assert "Processing triggers for jail" in dpkg("-i", debs["lib"])


def test_a_jail_that_cannot_be_built_any_more_is_marked_and_dpkg_goes_on(it):
    said = subprocess.run(["dpkg", "-r", "jail-thing"], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "it cannot be built any more" in mark("thing")
    assert subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Abbrev}", "jail"], capture_output=True, text=True).stdout == "ii "


def test_a_state_that_is_not_roots_fails_no_installation(it, debs):
    os.chown(STATE / "thing", 65534, 65534)
    done = subprocess.run(["dpkg", "-i", debs["1.1"]], capture_output=True, text=True)
    assert done.returncode == 0 and "not a safe place for jails" in done.stderr
    assert mark("thing") is None
