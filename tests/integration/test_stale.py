"""jail stale: which jails hold other files than the host, by package. Packages are made here and installed, upgraded and
downgraded by dpkg itself, on layers that are gone when this process ends."""

import pathlib
import subprocess

import pytest

from jailtest import Instance
from packages import layered

MANIFEST = """
version = 1
[tree]
binaries = ["/usr/bin/sleep"]
users = ["nobody"]
files = [{ from = "/usr/share/jail-thing", to = "/usr/share/jail-thing" }, { from = "/etc/loose", to = "/etc/loose" }]
[service]
command = ["/usr/bin/sleep", "1000"]
user = "nobody"
"""


def package(folder, version, **files):
    """A package jail-thing with files of these names and contents, as a .deb."""
    root = folder / version
    share = root / "usr/share/jail-thing"
    share.mkdir(parents=True)
    for name, text in files.items():
        (share / name).write_text(text)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        f"Package: jail-thing\nVersion: {version}\nArchitecture: all\nMaintainer: jail <root@localhost>\nDescription: of a test\n"
    )
    made = folder / f"{version}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, made], check=True, capture_output=True)
    return made


def install(deb):
    subprocess.run(["dpkg", "-i", deb], check=True, capture_output=True)


@pytest.fixture(scope="module")
def debs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("debs")
    return {
        "1.0": package(folder, "1.0", one="first\n", two="same\n"),
        "1.1": package(folder, "1.1", one="second\n", two="same\n", three="new\n"),
    }


@pytest.fixture
def it(debs):
    with layered(), Instance() as instance:
        install(debs["1.0"])
        pathlib.Path("/etc/loose").write_text("mine\n")
        for name in ("thing", "other"):
            instance.manifest(name, MANIFEST)
        instance.manifest("apart", MANIFEST.replace("files", "#files"))
        instance.run("build", "thing", "other", "apart")
        yield instance


def test_nothing_is_stale_after_a_build(it):
    assert it.run("stale").stdout == ""
    assert it.run("stale", "thing", "-v").stdout == "thing: as on the host\n"


def test_an_upgrade_is_told_by_package_and_mended_by_a_build(it, debs):
    install(debs["1.1"])
    assert it.run("stale", status=1).stdout == "other: jail-thing 1.0 -> 1.1\nthing: jail-thing 1.0 -> 1.1\n"
    said = it.run("stale", "thing", "-v", status=1).stdout.splitlines()
    assert said == ["thing: jail-thing 1.0 -> 1.1", "thing: /usr/share/jail-thing/one differs", "thing: /usr/share/jail-thing/three would be added"]
    assert it.run("stale", "apart").stdout == ""
    it.run("build", "thing")
    assert it.run("stale", "thing").stdout == ""
    # Back again.
    install(debs["1.0"])
    answer = it.json("stale", "thing", status=1)["jails"]
    assert answer == [{"name": "thing", "stale": True, "packages": [{"name": "jail-thing", "before": "1.1", "after": "1.0"}],
                       "paths": ["/usr/share/jail-thing/one", "/usr/share/jail-thing/three"]}]
    # The other one never left it.
    assert it.run("stale", "other").stdout == ""


def test_a_file_of_no_package_is_told_by_its_path(it):
    pathlib.Path("/etc/loose").write_text("changed\n")
    assert it.run("stale", "thing", status=1).stdout == "thing: /etc/loose differs\n"


def test_what_no_package_explains_is_told_beside_the_packages(it, debs):
    install(debs["1.1"])
    pathlib.Path("/etc/loose").write_text("changed\n")
    assert it.run("stale", "thing", status=1).stdout == "thing: jail-thing 1.0 -> 1.1\nthing: /etc/loose differs\n"


def test_looking_changes_nothing(it, debs):
    install(debs["1.1"])
    lock = (it.home / "state/jails/thing/current/jail.lock").read_bytes()
    it.run("stale", status=1)
    assert (it.home / "state/jails/thing/current/jail.lock").read_bytes() == lock
    assert [row["generation"] for row in it.json("history", "thing")["generations"]] == [1]
    it.run("verify", "thing")


def test_what_cannot_be_told_is_an_error_and_no_silence(it):
    it.run("stale", "nothing", status=66)
    it.manifest("unbuilt", MANIFEST)
    assert "run: jail build unbuilt" in it.run("stale", "unbuilt", status=66).stderr
    (it.home / "manifests/thing.toml").write_text("version = 2\n")
    assert it.run("stale", "thing", status=65).stdout == ""
