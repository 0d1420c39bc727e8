"""secret = true: in no store, in no hash that others may see, of tight mode, refreshed by a build, checked by verify, and
nothing of it left on the disk when its generation goes."""
import hashlib
import json
import os
import pathlib
import subprocess

import pytest

from treehome import Home, own_mounts  # noqa: F401

DROP_IN = """version = 1
[[tree.files]]
from = "/mnt/home/key"
to = "/etc/key"
owner = "nobody"
secret = true
[[tree.files]]
from = "/mnt/home/keys"
to = "/etc/keys"
secret = true
"""


@pytest.fixture
def home():
    with Home() as it:
        (it.path / "manifests/tiny.toml.d").mkdir()
        (it.path / "manifests/tiny.toml.d/50-secret.toml").write_text(DROP_IN)
        (it.path / "keys").mkdir()
        (it.path / "keys").chmod(0o755)
        give(it, "hunter2")
        yield it


def give(home, text):
    """The secrets: one that could be guessed, one larger than what is shared. The host lets all read them."""
    (home.path / "key").write_text(text)
    (home.path / "keys/large").write_text(text * 2000)
    for file in (home.path / "key", home.path / "keys/large"):
        file.chmod(0o644)


def lines_of(home):
    return {e["path"]: e for e in json.loads((home.jail / "current/jail.lock").read_text())["entries"]}


def test_a_secret_is_tight_alone_and_in_no_hash(home):
    home.run("build", "tiny")
    tree = (home.jail / "current/tree").resolve()
    for path, mode, uid in (("etc/key", 0o640, 65534), ("etc/keys/large", 0o640, 0), ("etc/keys", 0o750, 0)):
        status = (tree / path).stat()
        assert (status.st_mode & 0o7777, status.st_uid) == (mode, uid), path
    for path in ("etc/key", "etc/keys/large"):
        assert (tree / path).stat().st_nlink == 1
    hashes = [hashlib.sha256(text).hexdigest().encode() for text in (b"hunter2", b"hunter2" * 2000)]
    guarded = home.jail / "current/secrets.json"
    assert all(h in guarded.read_bytes() for h in hashes) and guarded.stat().st_mode & 0o7777 == 0o600
    # Neither bytes nor hash anywhere else in the state, the names of files included.
    for folder, _, files in os.walk(home.path / "state"):
        for name in files:
            path = pathlib.Path(folder, name)
            if path.is_file() and path not in (tree / "etc/key", tree / "etc/keys/large") and not path.samefile(guarded):
                content = path.read_bytes() + os.fsencode(name)
                assert not any(h in content for h in [*hashes, b"hunter2"]), path
    entries = lines_of(home)
    for path in ("/etc/key", "/etc/keys/large"):
        assert entries[path]["secret"] is True and not {"sha256", "size"} & set(entries[path])
    plan = json.loads(home.run("plan", "tiny", "--json").stdout)
    assert [e["path"] for e in plan["entries"] if e.get("secret")] == ["/etc/key", "/etc/keys", "/etc/keys/large"]
    shown = home.run("files", "tiny", "--json").stdout + home.run("lock", "tiny").stdout + home.run("show", "tiny", "--json").stdout
    assert not any(h.decode() in shown for h in hashes) and "hunter2" not in shown


def test_another_secret_is_a_new_generation_and_the_same_is_none(home):
    home.run("build", "tiny")
    assert "up to date" in home.run("build", "tiny").stdout
    before = (home.jail / "current/jail.lock").read_bytes()
    give(home, "hunter3")  # of the same length
    assert "/etc/key" in home.run("stale", "tiny", "--verbose", status=1).stdout
    assert "generation 2" in home.run("build", "tiny").stdout
    assert (home.jail / "current/tree/etc/key").read_text() == "hunter3"
    assert (home.jail / "current/jail.lock").read_bytes() == before, "the lock tells the secrets apart"
    assert "~ /etc/key (content)" in home.run("diff", "tiny", status=1).stdout
    home.run("verify", "tiny")
    home.run("rollback", "tiny")
    assert (home.jail / "current/tree/etc/key").read_text() == "hunter2"
    home.run("verify", "tiny")


def test_verify_sees_a_changed_secret_and_a_build_heals_it(home):
    home.run("build", "tiny")
    key = home.jail / "current/tree/etc/key"
    for spoil, what in ((lambda: key.write_text("hunter9"), "content differs"), (lambda: key.chmod(0o644), "mode is 0644"),
                        (lambda: key.write_text("longer than it was"), "size is")):
        key = home.jail / "current/tree/etc/key"
        spoil()
        assert f"/etc/key: {what}" in home.run("verify", "tiny", status=1).stdout
        home.run("build", "tiny")
        assert (home.jail / "current/tree/etc/key").read_text() == "hunter2"
        home.run("verify", "tiny")
    secrets = home.jail / "current/secrets.json"
    good = secrets.read_text()
    secrets.unlink()
    assert "secrets.json: missing" in home.run("verify", "tiny", status=1).stdout
    secrets.write_text(good.replace("etc/key\"", "etc/kex\""))
    assert "secrets.json: does not fit the lock" in home.run("verify", "tiny", status=1).stdout
    home.run("build", "tiny")
    home.run("verify", "tiny")


def held(home):
    """Descriptors of the secrets of the current generation: what the disk has once their names are gone."""
    return [open(home.jail / "current/tree" / path, "rb") for path in ("etc/key", "etc/keys/large")]


def test_nothing_of_a_secret_is_left_when_its_generation_goes(home):
    def gone(files):
        for file in files:
            file.seek(0)
            content = file.read()
            assert os.fstat(file.fileno()).st_nlink == 0 and content and content.count(0) == len(content)

    home.run("build", "tiny")
    old = held(home)
    give(home, "second")
    home.run("build", "tiny")
    home.run("gc", "--keep", "0")
    gone(old)
    # By a build that keeps two before it, by remove, and by the next build when one was killed.
    old = held(home)
    for text in ("third", "fourth", "fifth"):
        give(home, text)
        home.run("build", "tiny")
    gone(old)
    old = held(home)
    give(home, "sixth")
    done = subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=syncfs:signal=KILL:when=1", *home.command("build", "tiny")])
    assert done.returncode != 0
    staging = next(p for p in (home.jail / "gen").iterdir() if p.name.startswith(".new"))
    left = [open(staging / "tree/etc/key", "rb")]
    assert left[0].read() == b"sixth"
    home.run("build", "tiny")
    gone(left)
    home.run("remove", "tiny")
    gone(old)


def test_a_manifest_that_gives_a_secret_away_is_refused(home):
    drop_in = home.path / "manifests/tiny.toml.d/60-bad.toml"
    drop_in.write_text('version = 1\n[[tree.files]]\nto = "/etc/password"\ntext = "hunter2"\nsecret = true\n')
    assert "put it into a file" in home.run("build", "tiny", status=65).stderr
    drop_in.write_text('version = 1\n[[tree.files]]\nto = "/etc/p"\nfrom = "/mnt/home/key"\nmode = "0644"\nsecret = true\n')
    assert "at a secret" in home.run("build", "tiny", status=65).stderr
