"""jail refresh, with named: a library that it loads is upgraded and downgraded by dpkg, on layers of this process alone; a
client goes on asking, and a bad library is gone back from."""

import pathlib
import re
import subprocess
import threading
import time

import pytest

from jailtest import Instance, dns_query, wait_for
from packages import layered

LIBRARY = "libcap2"  # which named loads, and its check and its check_config do not


class Asking(threading.Thread):
    """Asks all the time. `pauses`: how long no answer came, each time that one did not."""

    def __enter__(self):
        self.pauses, self.answers, self.stopping = [], 0, threading.Event()
        self.start()
        return self

    def run(self):
        last = time.monotonic()
        missed = False
        while not self.stopping.is_set():
            if dns_query("www.example.test", timeout=0.1) == (0, True, 1):
                if missed:
                    self.pauses.append(time.monotonic() - last)
                last, missed = time.monotonic(), False
                self.answers += 1
            else:
                missed = True
            time.sleep(0.005)

    def __exit__(self, *_):
        self.stopping.set()
        self.join()


def dpkg_query(form):
    return subprocess.run(["dpkg-query", "-W", "-f", form, LIBRARY], capture_output=True, text=True, check=True).stdout


def repacked(root, version, change):
    """The library's package as it is installed, with another version, `change` applied to the library itself."""
    info = pathlib.Path("/var/lib/dpkg/info")
    listed = subprocess.run(["dpkg", "-L", LIBRARY], capture_output=True, text=True, check=True).stdout.splitlines()
    for path in map(pathlib.Path, listed):
        if not path.is_dir():  # also of both spellings of a merged /usr
            (root / path.parent.relative_to("/")).mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", path, root / path.relative_to("/")], check=True)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        f"Package: {LIBRARY}\nVersion: {version}\nArchitecture: {dpkg_query('${Architecture}')}\nMulti-Arch: same\n"
        f"Maintainer: {dpkg_query('${Maintainer}')}\nDepends: {dpkg_query('${Depends}')}\nDescription: repacked by a test\n")
    triggers = next(info.glob(f"{LIBRARY}*.triggers"), None)
    if triggers:
        (root / "DEBIAN/triggers").write_text(triggers.read_text())
    library, = (path for path in root.rglob("libcap.so.2*") if not path.is_symlink())
    change(library)
    made = root.with_suffix(".deb")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", root, made], check=True, capture_output=True)
    return made


def newer(library):
    """Another file, and as good."""
    with open(library, "ab") as file:
        file.write(b"\0newer\0")


def broken(library):
    """Of the right name and class, and without what named wants of it: a build cannot know."""
    subprocess.run(["cc", "-shared", "-x", "c", "/dev/null", "-o", library, "-Wl,-soname,libcap.so.2"], check=True)


def install(deb):
    done = subprocess.run(["dpkg", "-i", "--force-downgrade", deb], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def it(tmp_path_factory):
    folder = tmp_path_factory.mktemp("debs")
    with layered(), Instance() as instance:
        old = dpkg_query("${Version}")
        instance.versions = {"old": old, "new": f"{old}+jail1", "bad": f"{old}+jail2"}
        changes = {"old": lambda library: None, "new": newer, "bad": broken}
        instance.debs = {name: repacked(folder / name, version, changes[name]) for name, version in instance.versions.items()}
        instance.init("named")
        instance.run("build", "named")
        instance.start_jaild()
        instance.run("start", "named")
        yield instance


def serves(it, generation):
    assert dns_query("www.example.test") == (0, True, 1)
    status = it.status("named")
    assert (status["state"], status["generation"], status["check"]) == ("ready", generation, "ok")
    return status["pid"]


def maps(pid):
    return re.findall(r" (/\S*libcap\S*)", pathlib.Path(f"/proc/{pid}/maps").read_text())


def test_an_upgrade_moves_in_while_a_client_asks(it):
    old, new = it.versions["old"], it.versions["new"]
    before = serves(it, 1)
    with Asking() as asking:
        install(it.debs["new"])
        assert it.run("stale", status=1).stdout == f"named: {LIBRARY} {old} -> {new}\n"
        assert it.run("ps", "--stale").stdout == ""  # nothing is built yet
        it.run("stale", "--mark", status=1)
        assert f"| {LIBRARY} {old} -> {new}" in it.run("status").stdout
        assert serves(it, 1) == before
        out = it.run("refresh", "named").stdout
        time.sleep(0.3)
    assert out == f"named: {LIBRARY} {old} -> {new}\nnamed: generation 2 serves, was 1\n"
    assert serves(it, 2) != before and maps(it.status("named")["pid"])
    print(f"refresh of named: {asking.answers} answers, pauses {[f'{pause * 1000:.0f} ms' for pause in asking.pauses]}")
    assert asking.answers > 50 and max(asking.pauses, default=0) < 3
    assert it.run("stale").stdout == it.run("ps", "--stale").stdout == ""
    assert "not as on the host" not in it.run("status").stdout


def test_a_bad_upgrade_is_gone_back_from(it):
    install(it.debs["bad"])
    assert f"{LIBRARY} {it.versions['new']} -> {it.versions['bad']}" in it.run("stale", status=1).stdout
    with Asking() as asking:
        failed = it.run("refresh", "--all", status=1)
        time.sleep(0.3)
    print(failed.stderr, f"pauses {[f'{pause * 1000:.0f} ms' for pause in asking.pauses]}")
    assert "named: generation 3 does not serve" in failed.stderr and "generation 2 serves again" in failed.stderr
    assert re.search("undefined symbol|symbol lookup error", failed.stderr)
    serves(it, 2)
    assert it.run("ps", "--stale").stdout == "" and it.run("stale", status=1).stdout
    it.run("verify", "named")


def test_a_check_that_fails_is_gone_back_from(it):
    """The daemon is well, and is not what its clients want."""
    install(it.debs["old"])
    it.drop_in("named", '[check]\nexpect = "127.0.0.9"\n[service]\nready = ["notify", "listen"]\n')
    failed = it.run("refresh", "named", status=1).stderr
    assert "its output lacks '127.0.0.9'" in failed and "generation 2 serves again" in failed
    serves(it, 2)
    (it.home / "manifests/named.toml.d/50-test.toml").unlink()


def test_a_downgrade_moves_in_too(it):
    old, new = it.versions["old"], it.versions["new"]
    assert it.run("refresh", "named").stdout == f"named: {LIBRARY} {new} -> {old}\nnamed: generation 5 serves, was 2\n"
    serves(it, 5)
    # What was built by hand and not restarted: told, and changed over when asked for.
    install(it.debs["new"])
    it.run("build", "named")
    stale = it.run("ps", "--stale", status=1).stdout
    assert re.search(r"^named +5 of 6 .*/usr/sbin/named ", stale, re.M)
    it.run("refresh", "named")
    serves(it, 6)
    assert it.run("ps", "--stale").stdout == ""
